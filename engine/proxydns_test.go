package engine_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// How a name server answers.
const (
	nameFound   = 0
	nameUnknown = 3  // NXDOMAIN (RFC 1035, section 4.1.1)
	nameFailure = 2  // SERVFAIL
	nameSilence = -1 // no answer
)

// nameServer answers every question for an address with 127.0.0.1, or fails.
type nameServer struct {
	conn net.PacketConn
	how  atomic.Int32
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn}
	done := make(chan struct{})
	go func() { defer close(done); s.serve() }()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return s
}

func (s *nameServer) serve() {
	buf := make([]byte, 512)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if how := s.how.Load(); how != nameSilence && n > 12 {
			_, _ = s.conn.WriteTo(nameAnswer(buf[:n], byte(how)), from)
		}
	}
}

// nameAnswer makes the answer to a question (RFC 1035, section 4).
func nameAnswer(question []byte, how byte) []byte {
	end := 12
	for question[end] != 0 {
		end += int(question[end]) + 1
	}
	end += 5 // the root label, type and class
	kind := binary.BigEndian.Uint16(question[end-4:])
	out := append([]byte{question[0], question[1], 0x81, 0x80 | how, 0, 1, 0, 0, 0, 0, 0, 0}, question[12:end]...)
	const typeA = 1
	if how == nameFound && kind == typeA {
		out[7] = 1
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	return out
}

// resolve has the engine find the proxy by a name, of which it asks the server.
func (r *proxyRig) resolve(s *nameServer) *http.Transport {
	transport := r.client.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: transport.TLSClientConfig.RootCAs, ServerName: "localhost"}
	dialer := &net.Dialer{Timeout: 100 * time.Millisecond, Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}}
	transport.DialContext = dialer.DialContext
	r.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// The name of a proxy that cannot be resolved, in whatever way, is an error that
// says so, within the time of a proxy; and when it can again, nobody has to do
// anything.
func TestProxyNameFails(t *testing.T) {
	r, names := newProxyRig(t), newNameServer(t)
	r.generate("xk-1")
	transport := r.resolve(names)
	f := newEngine(t, func(c *engine.Config) {
		c.Proxies, c.ProxyTimeout = &http.Client{Transport: transport}, time.Second
	})
	c := f.client()
	input := r.input("xks", prefixA)
	input.XksProxyUriEndpoint = aws.String(strings.Replace(r.server.URL, "127.0.0.1", "xks.example", 1))
	made, err := c.CreateCustomKeyStore(t.Context(), input)
	if err != nil {
		t.Fatal(err)
	}
	connect(t, c, made.CustomKeyStoreId)
	k := externalKey(t, c, made.CustomKeyStoreId, "xk-1")
	blob := encrypt(t, c, k.KeyId, "precious", nil)
	for name, how := range map[string]int32{"unknown": nameUnknown, "failure": nameFailure, "silence": nameSilence} {
		t.Run(name, func(t *testing.T) {
			names.how.Store(how)
			transport.CloseIdleConnections() // one that is open needs no name
			_, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")})
			wantError(t, err, keyState, cannotCommunicate)
			_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
			wantError(t, err, keyState, cannotCommunicate)
			other := r.input("other", prefixB)
			other.XksProxyUriEndpoint = input.XksProxyUriEndpoint
			_, err = c.CreateCustomKeyStore(t.Context(), other)
			wantError(t, err, unreachable, cannotCommunicate)
			names.how.Store(nameFound)
			// A question that is still unanswered may be waited for once more.
			for err = errors.New("not tried"); err != nil && t.Context().Err() == nil; {
				_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
			}
			wantPlaintext(t, c, blob, nil, "precious")
		})
	}
	disconnect(t, c, made.CustomKeyStoreId)
	transport.CloseIdleConnections()
	names.how.Store(nameUnknown)
	begin(t, c, made.CustomKeyStoreId)
	if s := settled(t, c, made.CustomKeyStoreId); s.ConnectionErrorCode != types.ConnectionErrorCodeTypeXksProxyNotReachable {
		t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
	}
}
