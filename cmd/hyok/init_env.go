package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/hyok-kms/hyok/internal/atomicfile"
	"github.com/hyok-kms/hyok/internal/config"
)

// variable is an assignment of the shell; without a value it must not be set, since
// some clients send one that is empty.
type variable struct{ name, value string }

// writeEnv writes what a client needs as shell assignments.
func writeEnv(dir, conf, module string, c *config.Config) error {
	clients := append(xksVariables(dir, c), kmsVariables(dir, c)...)
	if len(clients) == 0 {
		return nil // the configuration was made over: the file that is there is of no use to change
	}
	var b strings.Builder
	var names []string
	b.WriteString("# What clients of this data folder need. It holds secrets.\n")
	var unset []string
	for _, v := range append(clients,
		variable{"SOFTHSM2_CONF", conf},
		variable{"HYOK_PKCS11_MODULE", module},
		variable{"HYOK_PIN_FILE", filepath.Join(dir, "pin")},
	) {
		if v.value == "" {
			unset = append(unset, v.name)
			continue
		}
		fmt.Fprintf(&b, "%s='%s'\n", v.name, strings.ReplaceAll(v.value, "'", `'\''`))
		names = append(names, v.name)
	}
	// Apart from the assignments, which programs may read too.
	fmt.Fprintf(&b, "export %s\n", strings.Join(names, " "))
	if len(unset) > 0 {
		fmt.Fprintf(&b, "unset %s\n", strings.Join(unset, " "))
	}
	if err := atomicfile.Write(filepath.Join(dir, quickstartFile), []byte(b.String())); err != nil {
		return fmt.Errorf("write %s: %w", quickstartFile, err)
	}
	return nil
}

// xksVariables returns what a client of the first key store needs, or nothing
// where it cannot be called.
func xksVariables(dir string, c *config.Config) []variable {
	store := c.Store(quickstartStore)
	if store == nil || len(store.Credentials) == 0 || len(c.Listeners) == 0 {
		return nil
	}
	credential := store.Credentials[0]
	return []variable{
		{envXKSURL, listenerURL(c.Listeners[0]) + store.Prefix},
		{envXKSKeyID, quickstartKey},
		{envXKSAccessKeyID, credential.AccessKeyID},
		{envXKSSecretAccessKey, credential.SecretAccessKey},
		{envXKSRegion, quickstartRegion},
		{envCAFile, authorityFile(dir)},
	}
}

// kmsVariables returns what the aws CLI and AWS's SDKs need to call the embedded
// KMS, or nothing where they cannot.
func kmsVariables(dir string, c *config.Config) []variable {
	if c.KMS == nil || len(c.KMS.Identities) == 0 {
		return nil
	}
	l, id := c.KMS.Listeners[0], c.KMS.Identities[0]
	all := []variable{
		{"AWS_ENDPOINT_URL_KMS", listenerURL(l)},
		{"AWS_ENDPOINT_URL_STS", listenerURL(l)},
		{"AWS_ACCESS_KEY_ID", id.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", id.SecretAccessKey},
		// What another session has left would be sent.
		{"AWS_SESSION_TOKEN", id.SessionToken},
		{"AWS_REGION", quickstartRegion},
		{"AWS_DEFAULT_REGION", quickstartRegion}, // where version 1 of the aws CLI looks
	}
	if l.TLS != nil {
		all = append(all, variable{"AWS_CA_BUNDLE", authorityFile(dir)})
	}
	return all
}

// authorityFile is where the authority of the certificate is.
func authorityFile(dir string) string { return filepath.Join(dir, "tls", "ca.crt") }

// listenerURL is where a client on this machine reaches a listener.
func listenerURL(l config.Listener) string {
	if l.TLS == nil {
		return "http://" + clientAddress(l.Address)
	}
	return "https://" + clientAddress(l.Address)
}

// clientAddress is where a client on this machine reaches a listener.
func clientAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// curlExample is a command line that encrypts with the first key.
func curlExample(env string) string {
	return fmt.Sprintf(`  . '%s'
  curl --cacert "$HYOK_CA_FILE" --aws-sigv4 "aws:amz:$HYOK_XKS_REGION:kms-xks-proxy" \
    --user "$HYOK_XKS_ACCESS_KEY_ID:$HYOK_XKS_SECRET_ACCESS_KEY" -H 'Content-Type: application/json' \
    -d '{"requestMetadata":{"awsPrincipalArn":"arn:aws:iam::123456789012:user/Alice","kmsKeyArn":"arn:aws:kms:us-east-1:123456789012:key/1","kmsOperation":"Encrypt","kmsRequestId":"1"},"plaintext":"SGVsbG8gV29ybGQh","encryptionAlgorithm":"AES_GCM"}' \
    "$HYOK_XKS_URL/kms/xks/v1/keys/$HYOK_XKS_KEY_ID/encrypt"
`, strings.ReplaceAll(env, "'", `'\''`))
}
