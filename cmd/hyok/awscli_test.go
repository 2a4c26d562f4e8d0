package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// shell runs a script with the variables of quickstart.env. Old aws CLIs do not
// know where to call from those.
func (s *served) shell(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	const prelude = `aws() {
	case $1 in
	sts) command aws --endpoint-url "$AWS_ENDPOINT_URL_STS" "$@" ;;
	*) command aws --endpoint-url "$AWS_ENDPOINT_URL_KMS" "$@" ;;
	esac
}
`
	cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", prelude+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "AWS_PAGER=")
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(out), err
}

// readme runs the examples of the README as they stand there, all parts at a time,
// each with the file that the first one makes.
func (s *served) readme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "**Use it as AWS KMS.**")
	section, _, ended := strings.Cut(section, "\n**")
	parts := strings.Split(section, "```sh\n")[1:]
	if !found || !ended || len(parts) != 3 {
		t.Fatalf("the README has %d examples of the aws CLI", len(parts))
	}
	dirs, outputs, errs := make([]string, len(parts)), make([]string, len(parts)), make([]error, len(parts))
	var running sync.WaitGroup
	for i, part := range parts {
		script, _, _ := strings.Cut(part, "```")
		dirs[i] = t.TempDir()
		if err := os.WriteFile(filepath.Join(dirs[i], "hello"), []byte("Hello World!\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		running.Go(func() { outputs[i], errs[i] = s.shell(t, dirs[i], script) })
	}
	running.Wait()
	for i, want := range []string{"Hello World!\n", "Verified OK\n", ""} {
		if errs[i] != nil || !strings.HasSuffix(outputs[i], want) {
			t.Errorf("part %d: %v\n%s", i+1, errs[i], outputs[i])
		}
	}
	if !strings.Contains(outputs[0], `"Arn": "arn:aws:iam::111122223333:root"`) {
		t.Errorf("get-caller-identity:\n%s", outputs[0])
	}
	s.verifyImport(t, dirs[2])
}

// verifyImport fails unless the key that the README imported is there with its
// material, so that the same can be imported and no other.
func (s *served) verifyImport(t *testing.T, dir string) {
	t.Helper()
	ctx, c := t.Context(), s.client()
	var imported int
	pages := kms.NewListKeysPaginator(c, &kms.ListKeysInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Keys {
			out, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: k.KeyId})
			if err != nil {
				t.Fatal(err)
			}
			if out.KeyMetadata.Origin == types.OriginTypeExternal && out.KeyMetadata.KeyState == types.KeyStateEnabled {
				imported++
			}
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "material")); imported != 1 || err != nil || info.Size() != 32 {
		t.Errorf("%d imported keys, material %v, %v", imported, info, err)
	}
}

// createKeyForms makes keys by the aws CLI in the forms that documents have, a
// few processes at a time since each takes a good second, and describes them.
func (s *served) createKeyForms(t *testing.T, c *kms.Client, external, cluster *string) {
	s.hyok("key", "create", "of-the-cli", "--token", "main")
	forms := map[string]string{ // to what DescribeKey tells of spec, usage, origin and state
		"--key-spec RSA_2048 --key-usage ENCRYPT_DECRYPT":                                             "RSA_2048 ENCRYPT_DECRYPT AWS_KMS Enabled",
		"--customer-master-key-spec ECC_NIST_P384 --key-usage SIGN_VERIFY":                            "ECC_NIST_P384 SIGN_VERIFY AWS_KMS Enabled",
		"--key-spec ECC_NIST_P521 --key-usage KEY_AGREEMENT":                                          "ECC_NIST_P521 KEY_AGREEMENT AWS_KMS Enabled",
		"--key-spec ECC_NIST_EDWARDS25519 --key-usage SIGN_VERIFY":                                    "ECC_NIST_EDWARDS25519 SIGN_VERIFY AWS_KMS Enabled",
		"--key-spec HMAC_384 --key-usage GENERATE_VERIFY_MAC":                                         "HMAC_384 GENERATE_VERIFY_MAC AWS_KMS Enabled",
		"--multi-region --tags TagKey=a,TagValue=b":                                                   "SYMMETRIC_DEFAULT ENCRYPT_DECRYPT AWS_KMS Enabled",
		"--origin AWS_CLOUDHSM --custom-key-store-id " + *cluster:                                     "SYMMETRIC_DEFAULT ENCRYPT_DECRYPT AWS_CLOUDHSM Enabled",
		"--origin EXTERNAL_KEY_STORE --custom-key-store-id " + *external + " --xks-key-id of-the-cli": "SYMMETRIC_DEFAULT ENCRYPT_DECRYPT EXTERNAL_KEY_STORE Enabled",
	}
	const atOnce = 3
	turns := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for args := range maps.Keys(forms) {
		running.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			id, err := s.shell(t, "", "aws kms create-key "+args+" --query KeyMetadata.KeyId --output text")
			for range 5 { // see patiently
				if err == nil || !strings.Contains(err.Error(), "Retry the request") {
					break
				}
				id, err = s.shell(t, "", "aws kms create-key "+args+" --query KeyMetadata.KeyId --output text")
			}
			if err != nil {
				t.Errorf("%s: %v", args, err)
				return
			}
			out, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String(strings.TrimSpace(id))})
			if err != nil {
				t.Errorf("%s: %v", args, err)
				return
			}
			m := out.KeyMetadata
			if got := fmt.Sprintf("%s %s %s %s", m.KeySpec, m.KeyUsage, m.Origin, m.KeyState); got != forms[args] {
				t.Errorf("%s made %s", args, got)
			}
		})
	}
	running.Wait()
	// The CLI shows the errors that AWS's documents show.
	_, err := s.shell(t, "", "aws kms create-key --key-spec ECC_NIST_P256 --key-usage ENCRYPT_DECRYPT")
	if err == nil || !strings.Contains(err.Error(), "An error occurred (ValidationException) when calling the CreateKey operation") {
		t.Errorf("an invalid combination: %v", err)
	}
}
