package engine_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// A password that the token refused is not tried again, however often one asks:
// tokens lock themselves.
func TestWrongPassword(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	in := r.input("cluster")
	in.KeyStorePassword = aws.String("a wrong PIN")
	storeID := must(c.CreateCustomKeyStore(t.Context(), in)).CustomKeyStoreId
	for range 3 {
		begin(t, c, storeID)
		if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeFailed || s.ConnectionErrorCode != types.ConnectionErrorCodeTypeInvalidCredentials {
			t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
		}
		disconnect(t, c, storeID)
		f.reopen()
		c = f.client()
	}
	if n := r.opened.Load(); n != 1 {
		t.Errorf("the password was tried %d times", n)
	}
	must(c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, KeyStorePassword: aws.String(tokentest.PIN)}))
	connect(t, c, storeID)
}

// A token that this process is logged in to takes any PIN: the password counts
// all the same.
func TestPasswordOfATokenInUse(t *testing.T) {
	for _, x := range []struct {
		name, password string
		known          bool // the process knows the PIN by which it logged in
		code           types.ConnectionErrorCodeType
	}{
		{"right", tokentest.PIN, true, ""},
		{"wrong", "a wrong PIN", true, types.ConnectionErrorCodeTypeInvalidCredentials},
		{"cannot be proven", tokentest.PIN, false, types.ConnectionErrorCodeTypeUserLoggedIn},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newClusterRig(t)
			o := r.options
			o.PIN = func() (string, error) { return tokentest.PIN, nil }
			tokentest.Open(t, &modules, o)
			if x.known {
				r.options = o
			}
			f := newEngine(t, r.use)
			c := f.client()
			in := r.input("cluster")
			in.KeyStorePassword = aws.String(x.password)
			storeID := must(c.CreateCustomKeyStore(t.Context(), in)).CustomKeyStoreId
			begin(t, c, storeID)
			if s := settled(t, c, storeID); s.ConnectionErrorCode != x.code || (x.code == "") != (s.ConnectionState == types.ConnectionStateTypeConnected) {
				t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
			}
		})
	}
}

func TestClusterConnectionErrorCodes(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	for _, x := range []struct {
		err  error
		code types.ConnectionErrorCodeType
	}{
		{keystore.ErrTokenNotFound, types.ConnectionErrorCodeTypeClusterNotFound},
		{&keystore.TokenError{Err: errors.New("the network")}, types.ConnectionErrorCodeTypeNetworkErrors},
		{context.DeadlineExceeded, types.ConnectionErrorCodeTypeNetworkErrors},
		{errors.New("something else"), types.ConnectionErrorCodeTypeInternalError},
		{errors.Join(keystore.ErrPINIncorrect, keystore.ErrPINLocked), types.ConnectionErrorCodeTypeUserLockedOut},
	} {
		r.first(func(context.Context) error { return x.err })
		begin(t, c, storeID)
		if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeFailed || s.ConnectionErrorCode != x.code {
			t.Errorf("%v: %s %s", x.err, s.ConnectionState, s.ConnectionErrorCode)
		}
		disconnect(t, c, storeID)
	}
	f.config.Clusters = nil
	f.reopen()
	c = f.client()
	must(c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, KeyStorePassword: aws.String(tokentest.PIN)}))
	begin(t, c, storeID)
	if s := settled(t, c, storeID); s.ConnectionErrorCode != types.ConnectionErrorCodeTypeClusterNotFound {
		t.Error(s.ConnectionErrorCode)
	}
}

// After a restart a store that was connected is so again, and until then its keys
// are Unavailable.
func TestConnectedStoresAreReconnected(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	connect(t, c, storeID)
	k := clusterKey(t, c, storeID)
	blob := encrypt(t, c, k.KeyId, "hello", nil)

	release := make(chan struct{})
	var tries atomic.Int32
	r.first(func(context.Context) error {
		<-release
		if tries.Add(1) == 1 {
			return &keystore.TokenError{Err: errors.New("the network is not up yet")}
		}
		return nil
	})
	f.reopen()
	c = f.client()
	if s := describeStore(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeConnecting {
		t.Error(s.ConnectionState)
	}
	if s := keyStateOf(t, c, k.KeyId); s != types.KeyStateUnavailable {
		t.Error(s)
	}
	_, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	wantCode(t, err, keyState)
	close(release)
	if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeConnected {
		t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
	}
	if tries.Load() != 2 {
		t.Errorf("%d tries", tries.Load())
	}
	wantPlaintext(t, c, blob, nil, "hello")

	disconnect(t, c, storeID)
	f.reopen()
	if s := describeStore(t, f.client(), storeID); s.ConnectionState != types.ConnectionStateTypeDisconnected {
		t.Error(s.ConnectionState)
	}
}

// What was CONNECTING when the process ended goes on after it.
func TestConnectingGoesOnAfterARestart(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	r.first(hang)
	begin(t, c, storeID)
	must(c.ConnectCustomKeyStore(t.Context(), &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: storeID}))
	_, err := c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, NewCustomKeyStoreName: aws.String("new")})
	wantCode(t, err, storeState)
	_, err = c.DeleteCustomKeyStore(t.Context(), &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: storeID})
	wantCode(t, err, storeState)
	f.close()
	r.first(nil)
	f.open()
	c = f.client()
	if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeConnected {
		t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
	}
	// One that hangs can be disconnected.
	disconnect(t, c, storeID)
	r.first(hang)
	begin(t, c, storeID)
	disconnect(t, c, storeID)
	r.first(nil)
	connect(t, c, storeID)
}
