package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/keystore"
)

// Environment variables that hold the PINs of a new token.
const (
	envSOPIN = "HYOK_SO_PIN"
	envPIN   = "HYOK_PIN"
)

// minPIN is the least length of a PIN: SoftHSM2's own.
const minPIN = 4

// initView is a token that was initialized.
type initView struct {
	tokenView `json:",inline"`
	URI       string `json:"uri"` // for the configuration
}

func newTokenInitCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	var module moduleFlags
	var soFile, pinFile string
	cmd := &cobra.Command{
		Use:   "init LABEL --module PATH",
		Short: "Initialize an empty token and set its PINs",
		Long: `Initializes the first token of the module that is not yet, with the label and both PINs. A
PIN is the first line of a file, or the value of ` + envSOPIN + ` and ` + envPIN + `, or is asked
for on a terminal. The security officer's PIN is needed to reset the user PIN; a server
needs the user PIN alone. Tokens that are initialized already are left alone; one of this
label that has no user PIN, since the command was killed, gets it. SoftHSM2 uses
the softhsm2_conf of the configuration that --data or --config names, or $SOFTHSM2_CONF.`,
		Example: `  $ hyok token init hyok --module /usr/lib/softhsm/libsofthsm2.so --so-pin-file so-pin --pin-file pin
  Token hyok was initialized, with the serial a1f00d3d2a6e03ff.
  Its URI for the configuration:
    pkcs11:token=hyok?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/srv/hyok/pin`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if module.path == "" {
				return usagef("--module says which PKCS#11 module has the token")
			}
			if _, _, err := data.modules(module); err != nil {
				return err
			}
			soPIN, _, err := newPIN(cmd, "security officer's PIN", "--so-pin-file", soFile, envSOPIN)
			if err != nil {
				return err
			}
			pin, source, err := newPIN(cmd, "user PIN", "--pin-file", pinFile, envPIN)
			if err != nil {
				return err
			}
			info, err := await(cmd.Context(), func() (keystore.TokenInfo, error) {
				return new(keystore.Modules).InitToken(module.path, module.parameters, args[0], soPIN, pin)
			})
			if err != nil {
				return err
			}
			u := keystore.URI{Token: info.Label, ModulePath: module.path, ModuleParameters: module.parameters, PINSource: source}
			return printInit(cmd, *format, initView{tokenView{Module: module.path, TokenInfo: info}, u.String()})
		},
	}
	module.add(cmd, "PKCS#11 module that has the token")
	cmd.Flags().StringVar(&soFile, "so-pin-file", "", "file with the security officer's PIN")
	cmd.Flags().StringVar(&pinFile, "pin-file", "", "file with the user PIN")
	return cmd
}

// newPIN returns a PIN for a new token and what a URI can name as its source.
func newPIN(cmd *cobra.Command, what, flag, file, env string) (pin, source string, err error) {
	switch {
	case file != "":
		path, err := filepath.Abs(file)
		if err != nil {
			return "", "", fmt.Errorf("find the file of the %s: %w", what, err)
		}
		source = "file:" + path
		if pin, err = (keystore.URI{PINSource: source}).PIN("", false); err != nil {
			return "", "", fmt.Errorf("%s: %w", flag, err)
		}
	case os.Getenv(env) != "":
		pin, source = os.Getenv(env), "env:"+env
	case !isTerminal(cmd.InOrStdin()):
		return "", "", usagef("no %s: give %s or %s, since there is no terminal to ask on", what, flag, env)
	default:
		if pin, err = askTwice(cmd, what); err != nil {
			return "", "", err
		}
	}
	if len(pin) < minPIN {
		return "", "", fmt.Errorf("the %s is too short: it must have %d characters at least", what, minPIN)
	}
	return pin, source, nil
}

func askTwice(cmd *cobra.Command, what string) (string, error) {
	first, err := askSecret(cmd, "New "+what+": ")
	if err != nil {
		return "", err
	}
	second, err := askSecret(cmd, "The same again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", fmt.Errorf("the two inputs of the %s differ: nothing was changed", what)
	}
	return first, nil
}

func printInit(cmd *cobra.Command, format outputFormat, v initView) error {
	if format == formatJSON {
		return printJSON(cmd.OutOrStdout(), v)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "Token %s was initialized, with the serial %s.\nIts URI for the configuration:\n  %s\n", v.Label, v.Serial, v.URI)
	return err
}
