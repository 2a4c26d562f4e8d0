package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/atomicfile"
	"github.com/hyok-kms/hyok/internal/config"
)

// consoleFile is the proxy configuration file that the AWS console accepts.
type consoleFile struct {
	Path       string            `json:"XksProxyUriPath"`
	Credential consoleCredential `json:"XksProxyAuthenticationCredential"`
}

type consoleCredential struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string `json:"RawSecretAccessKey"`
}

func newStoreExportCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	var accessKeyID, out string
	var force bool
	cmd := &cobra.Command{
		Use:   "export NAME",
		Short: "Write the proxy configuration file for the AWS console",
		Long: `Writes the JSON file from which the AWS console, creating or editing an external key
store, takes XksProxyUriPath and XksProxyAuthenticationCredential. It holds a secret:
its mode is 0600, and it should be deleted after use. --out - writes to standard output.`,
		Example: `  $ hyok store export prod --out prod.json
  prod.json has the URI path /prod/kms/xks/v1 and the secret of the credential LNSSAZKCIKUSWNCBLGP2FQG5.
  Upload it to the AWS console, then delete it.`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: data.completeStore,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, s, err := data.store(args[0])
			if err != nil {
				return err
			}
			file, err := newConsoleFile(s, accessKeyID)
			if err != nil {
				return err
			}
			if out == "-" {
				return printJSON(cmd.OutOrStdout(), file)
			}
			if out == "" {
				out = s.Name + "-xks-proxy.json"
			}
			if err := file.write(out, force); err != nil {
				return err
			}
			return reportExport(cmd, *format, out, file)
		},
	}
	cmd.Flags().StringVar(&accessKeyID, "access-key-id", "", "credential to export (default the newest)")
	cmd.Flags().StringVar(&out, "out", "", "file to write, - for standard output (default NAME-xks-proxy.json)")
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if there is one")
	return cmd
}

// newConsoleFile takes the credential of this id, or the last one for "".
func newConsoleFile(s *config.Store, accessKeyID string) (consoleFile, error) {
	for i := len(s.Credentials) - 1; i >= 0; i-- {
		if c := s.Credentials[i]; accessKeyID == "" || c.AccessKeyID == accessKeyID {
			return consoleFile{s.URIPath(), consoleCredential{c.AccessKeyID, c.SecretAccessKey}}, nil
		}
	}
	if accessKeyID == "" {
		return consoleFile{}, fmt.Errorf("key store %s has no credential: 'hyok credential create %s' makes one", s.Name, s.Name)
	}
	return consoleFile{}, fmt.Errorf("credential %q of key store %s %w", accessKeyID, s.Name, config.ErrNotFound)
}

// write creates the file at path, or replaces a regular one by force.
func (f consoleFile) write(path string, force bool) error {
	var text bytes.Buffer
	if err := printJSON(&text, f); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && force && info.Mode().IsRegular() {
		if err := os.Chmod(path, 0o600); err != nil { // the new file takes the mode of the old
			return err
		}
		return atomicfile.Write(path, text.Bytes())
	}
	err := atomicfile.Create(path, text.Bytes())
	if errors.Is(err, fs.ErrExist) && force {
		return refusedf("%s is not a regular file and stays as it is", path)
	} else if errors.Is(err, fs.ErrExist) {
		return refusedf("%s exists already: --force replaces it", path)
	}
	return err
}

func reportExport(cmd *cobra.Command, format outputFormat, out string, f consoleFile) error {
	if format == formatJSON {
		return printJSON(cmd.OutOrStdout(), map[string]string{"file": out, "xksProxyUriPath": f.Path, "accessKeyId": f.Credential.AccessKeyID})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s has the URI path %s and the secret of the credential %s.\nUpload it to the AWS console, then delete it.\n",
		out, f.Path, f.Credential.AccessKeyID)
	return err
}
