package proxy_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// Whoever may make custom key stores may not have the KMS look around in its own
// network: unless the configuration says otherwise, it connects to nobody there,
// and says the same of ports that are open and of those that are closed.
func TestProxiesNearbyAreNotCalled(t *testing.T) {
	r := newKMSRig(t)
	r.configure(strings.Replace(kmsConfig, ", allow: [127.0.0.1]", "", 1))
	r.start()
	open := httptest.NewTLSServer(http.NotFoundHandler())
	defer open.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	connections := make(chan net.Conn, 16)
	open.Config.ConnState = func(c net.Conn, _ http.ConnState) { connections <- c }
	create := func(address string) string {
		_, err := r.kms("first", "secret-of-the-first").CreateCustomKeyStore(patient(t), &kms.CreateCustomKeyStoreInput{
			CustomKeyStoreName: aws.String("store"), CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore,
			XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint,
			XksProxyUriEndpoint:  aws.String("https://" + address), XksProxyUriPath: aws.String("/kms/xks/v1"),
			XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{
				AccessKeyId: aws.String("ABCDEFGHIJKLMNOPQRST"), RawSecretAccessKey: aws.String(strings.Repeat("s", 43)),
			},
		})
		if code(err) != "XksProxyUriUnreachableException" {
			t.Fatalf("%s: %v", address, err)
		}
		_, text, _ := strings.Cut(err.Error(), "XksProxyUriUnreachableException") // before it is the request's id
		return text
	}
	first := create(open.Listener.Addr().String())
	for _, address := range []string{closed.Addr().String(), strings.Replace(open.Listener.Addr().String(), "127.0.0.1", "localhost", 1)} {
		if second := create(address); second != first {
			t.Errorf("%s: %s, and of another: %s", address, second, first)
		}
	}
	if len(connections) > 0 {
		t.Error("somebody was connected to")
	}
	r.stop()
	if log := r.log.String(); !strings.Contains(log, "connecting to this address is not allowed") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}
