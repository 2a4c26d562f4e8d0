package engine_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/xks"
)

const vpcService = "com.amazonaws.vpce.eu-central-1.vpce-svc-0123456789abcdef0"

// overVPC asks for an external key store behind a VPC endpoint service.
func (r *proxyRig) overVPC(name, prefix, service string) *kms.CreateCustomKeyStoreInput {
	in := r.input(name, prefix)
	in.XksProxyConnectivity = types.XksProxyConnectivityTypeVpcEndpointService
	in.XksProxyVpcEndpointServiceName = aws.String(service)
	return in
}

func TestDescribeCustomKeyStores(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	if out := must(c.DescribeCustomKeyStores(t.Context(), nil)); len(out.CustomKeyStores) != 0 || out.CustomKeyStores == nil || out.Truncated {
		t.Errorf("%+v", out)
	}
	storeID := must(c.CreateCustomKeyStore(t.Context(), r.input("external", prefixA))).CustomKeyStoreId
	if !strings.HasPrefix(*storeID, "cks-") || len(*storeID) != 21 {
		t.Error(*storeID)
	}
	want := types.CustomKeyStoresListEntry{
		ConnectionState: types.ConnectionStateTypeDisconnected, CreationDate: aws.Time(f.clock.now()), CustomKeyStoreId: storeID,
		CustomKeyStoreName: aws.String("external"), CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore,
		XksProxyConfiguration: &types.XksProxyConfigurationType{
			AccessKeyId: aws.String(r.credentials[prefixA].AccessKeyID), Connectivity: types.XksProxyConnectivityTypePublicEndpoint,
			UriEndpoint: aws.String(r.server.URL), UriPath: aws.String(prefixA + xks.APIPath),
		},
	}
	if got := describeStore(t, c, storeID); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	byName := must(c.DescribeCustomKeyStores(t.Context(), &kms.DescribeCustomKeyStoresInput{CustomKeyStoreName: aws.String("external")}))
	if len(byName.CustomKeyStores) != 1 || *byName.CustomKeyStores[0].CustomKeyStoreId != *storeID {
		t.Errorf("%+v", byName)
	}
	for _, in := range []*kms.DescribeCustomKeyStoresInput{
		{CustomKeyStoreId: aws.String("cks-0123456789abcdef0")}, {CustomKeyStoreName: aws.String("other")},
	} {
		_, err := c.DescribeCustomKeyStores(t.Context(), in)
		wantCode(t, err, "CustomKeyStoreNotFoundException")
	}
	_, err := c.DescribeCustomKeyStores(t.Context(), &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: storeID, CustomKeyStoreName: aws.String("external")})
	wantCode(t, err, "ValidationException")
	// Another account, and another Region, see nothing of it.
	for _, other := range []*engine.Client{f.as("444455556666", region), f.in("us-east-1")} {
		if out := must(other.DescribeCustomKeyStores(t.Context(), nil)); len(out.CustomKeyStores) != 0 {
			t.Errorf("%+v", out)
		}
		_, err := other.ConnectCustomKeyStore(t.Context(), &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: storeID})
		wantCode(t, err, "CustomKeyStoreNotFoundException")
		_, err = other.CreateKey(t.Context(), externalKeyInput(storeID, "external"))
		wantCode(t, err, "CustomKeyStoreNotFoundException")
	}
}

func TestCustomKeyStoresArePaged(t *testing.T) {
	r := newProxyRig(t)
	c := newEngine(t, r.use).client()
	want := map[string]bool{}
	for i := range 5 {
		in := r.overVPC(fmt.Sprint("store", i), prefixA, vpcService+fmt.Sprint(i)) // asks no proxy
		in.XksProxyUriEndpoint = aws.String(fmt.Sprintf("https://proxy%d.example.com", i))
		want[*must(c.CreateCustomKeyStore(t.Context(), in)).CustomKeyStoreId] = true
	}
	pages := 0
	p := kms.NewDescribeCustomKeyStoresPaginator(c, &kms.DescribeCustomKeyStoresInput{Limit: aws.Int32(2)})
	for p.HasMorePages() {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, s := range page.CustomKeyStores {
			if !want[*s.CustomKeyStoreId] {
				t.Errorf("%s came twice, or from nowhere", *s.CustomKeyStoreId)
			}
			delete(want, *s.CustomKeyStoreId)
		}
	}
	if pages != 3 || len(want) != 0 {
		t.Errorf("%d pages, %d are missing", pages, len(want))
	}
	_, err := c.DescribeCustomKeyStores(t.Context(), &kms.DescribeCustomKeyStoresInput{Marker: aws.String("nonsense")})
	wantCode(t, err, "InvalidMarkerException")
}

func TestCreateCustomKeyStoreIsRefused(t *testing.T) {
	r, h := newProxyRig(t), newClusterRig(t)
	f := newEngine(t, r.use, h.use)
	c := f.client()
	must(c.CreateCustomKeyStore(t.Context(), r.input("taken", prefixA)))
	inVPC := r.overVPC("vpc", prefixA, vpcService)
	inVPC.XksProxyUriEndpoint = aws.String("https://private.example.com")
	must(c.CreateCustomKeyStore(t.Context(), inVPC))
	external := func(change func(*kms.CreateCustomKeyStoreInput)) *kms.CreateCustomKeyStoreInput {
		in := r.input("new", prefixB)
		change(in)
		return in
	}
	cluster := func(change func(*kms.CreateCustomKeyStoreInput)) *kms.CreateCustomKeyStoreInput {
		in := h.input("new")
		change(in)
		return in
	}
	type input = kms.CreateCustomKeyStoreInput
	const validation = "ValidationException"
	for i, x := range []struct {
		in   *input
		code string
		part string
	}{
		{external(func(in *input) { in.CustomKeyStoreName = aws.String("taken") }), "CustomKeyStoreNameInUseException", ""},
		{cluster(func(in *input) { in.CustomKeyStoreName = aws.String("taken") }), "CustomKeyStoreNameInUseException", ""},
		{r.input("new", prefixA), "XksProxyUriInUseException", ""},
		{r.overVPC("new", prefixB, vpcService+"b"), "XksProxyUriEndpointInUseException", ""},
		{external(func(in *input) { in.XksProxyUriEndpoint = aws.String("https://Private.example.com:443") }), "XksProxyUriEndpointInUseException", ""},
		{func() *input {
			in := r.overVPC("new", prefixB, vpcService+"b")
			in.XksProxyUriEndpoint = inVPC.XksProxyUriEndpoint
			return in
		}(), "XksProxyUriEndpointInUseException", ""},
		{func() *input {
			in := r.overVPC("new", prefixB, vpcService)
			in.XksProxyUriEndpoint = aws.String("https://private2.example.com")
			return in
		}(), "XksProxyVpcEndpointServiceInUseException", ""},
		{external(func(in *input) {
			in.XksProxyAuthenticationCredential = r.input("", prefixA).XksProxyAuthenticationCredential
		}),
			"XksProxyIncorrectAuthenticationCredentialException", ""},
		{external(func(in *input) { in.XksProxyUriPath = aws.String("/other" + xks.APIPath) }), badConfig, "invalid URI path"},
		{external(func(in *input) { in.XksProxyUriPath = aws.String(prefixB + "/kms/xks/v2") }), validation, "/kms/xks/v1"},
		{external(func(in *input) { in.XksProxyUriPath = aws.String("//b" + xks.APIPath) }), validation, "XksProxyUriPath"},
		{external(func(in *input) { in.XksProxyUriEndpoint = nil }), validation, "XksProxyUriEndpoint is required"},
		{external(func(in *input) { in.XksProxyUriPath = nil }), validation, "XksProxyUriPath is required"},
		{external(func(in *input) { in.XksProxyConnectivity = "" }), validation, "XksProxyConnectivity is required"},
		{external(func(in *input) { in.XksProxyAuthenticationCredential = nil }), validation, "XksProxyAuthenticationCredential is required"},
		{external(func(in *input) { in.XksProxyVpcEndpointServiceName = aws.String(vpcService) }), validation, "VPC_ENDPOINT_SERVICE"},
		{external(func(in *input) { in.XksProxyVpcEndpointServiceOwner = aws.String(account) }), validation, "VPC_ENDPOINT_SERVICE"},
		{external(func(in *input) { in.XksProxyConnectivity = types.XksProxyConnectivityTypeVpcEndpointService }), validation, "XksProxyVpcEndpointServiceName is required"},
		{external(func(in *input) { in.CloudHsmClusterId = aws.String(clusterID) }), validation, "CloudHsmClusterId is not valid"},
		{external(func(in *input) { in.KeyStorePassword = aws.String("1234567") }), validation, "KeyStorePassword is not valid"},
		{external(func(in *input) { in.TrustAnchorCertificate = aws.String("x") }), validation, "TrustAnchorCertificate is not valid"},
		{cluster(func(in *input) { in.CloudHsmClusterId = nil }), validation, "CloudHsmClusterId is required"},
		{cluster(func(in *input) { in.KeyStorePassword = nil }), validation, "KeyStorePassword is required"},
		{cluster(func(in *input) { in.TrustAnchorCertificate = nil }), validation, "TrustAnchorCertificate is required"},
		{cluster(func(in *input) { in.XksProxyUriPath = aws.String(xks.APIPath) }), validation, "XksProxyUriPath is not valid"},
		{cluster(func(in *input) { in.XksProxyVpcEndpointServiceOwner = aws.String(account) }), validation, "XksProxyVpcEndpointServiceOwner is not valid"},
	} {
		t.Run(fmt.Sprint(i, " ", x.code, " ", x.part), func(t *testing.T) {
			_, err := c.CreateCustomKeyStore(t.Context(), x.in)
			wantError(t, err, x.code, x.part)
		})
	}
	r.keys.down.Store(true)
	_, err := c.CreateCustomKeyStore(t.Context(), r.input("new", prefixB))
	wantCode(t, err, badResponse) // our proxy answers InternalException then
	r.keys.down.Store(false)
	r.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"xksProxyFleetSize":1,"xksProxyVendor":"v","xksProxyModel":"m","ekmVendor":"e","ekmFleetDetails":[`+
			`{"id":"1","model":"m","healthStatus":"UNAVAILABLE"},{"id":"2","model":"m","healthStatus":"UNAVAILABLE"}]}`)
	})
	_, err = c.CreateCustomKeyStore(t.Context(), r.input("new", prefixB))
	wantError(t, err, unreachable, "is in an unhealthy state")
	r.answer(nil)
	must(c.CreateCustomKeyStore(t.Context(), r.input("new", prefixB)))
	// Names and addresses are taken in one account and Region.
	must(f.in("us-east-1").CreateCustomKeyStore(t.Context(), r.input("taken", prefixA)))
	must(f.as("444455556666", region).CreateCustomKeyStore(t.Context(), r.input("taken", prefixA)))
	if out := must(c.DescribeCustomKeyStores(t.Context(), nil)); len(out.CustomKeyStores) != 3 {
		t.Errorf("%d key stores", len(out.CustomKeyStores))
	}
}

func TestUpdateExternalStore(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external")
	storeID := r.connected(c, "xks")
	other := r.overVPC("other", prefixB, vpcService)
	other.XksProxyUriEndpoint = aws.String("https://private.example.com")
	must(c.CreateCustomKeyStore(t.Context(), other))
	k := externalKey(t, c, storeID, "external")
	blob := encrypt(t, c, k.KeyId, "hello", nil)
	update := func(in kms.UpdateCustomKeyStoreInput) error {
		in.CustomKeyStoreId = storeID
		_, err := c.UpdateCustomKeyStore(t.Context(), &in)
		return err
	}
	credentialB, pathB := r.input("", prefixB).XksProxyAuthenticationCredential, aws.String(prefixB+xks.APIPath)

	// A connected store may change its name, credential and path, and calls the
	// proxy so from then on.
	wantCode(t, update(kms.UpdateCustomKeyStoreInput{NewCustomKeyStoreName: aws.String("other")}), "CustomKeyStoreNameInUseException")
	wantCode(t, update(kms.UpdateCustomKeyStoreInput{XksProxyUriPath: pathB}), "XksProxyIncorrectAuthenticationCredentialException")
	if err := update(kms.UpdateCustomKeyStoreInput{NewCustomKeyStoreName: aws.String("renamed"), XksProxyUriPath: pathB, XksProxyAuthenticationCredential: credentialB}); err != nil {
		t.Fatal(err)
	}
	s := describeStore(t, c, storeID)
	if *s.CustomKeyStoreName != "renamed" || *s.XksProxyConfiguration.UriPath != *pathB || *s.XksProxyConfiguration.AccessKeyId != *credentialB.AccessKeyId {
		t.Errorf("%+v", s)
	}
	r.asked()
	wantPlaintext(t, c, blob, nil, "hello")
	if asked := r.asked(); len(asked) != 1 || !strings.HasPrefix(asked[0].path, *pathB) {
		t.Errorf("%+v", asked)
	}
	// All else needs it to be disconnected.
	endpoint := aws.String(strings.Replace(r.server.URL, "127.0.0.1", "localhost", 1))
	for _, in := range []kms.UpdateCustomKeyStoreInput{
		{XksProxyUriEndpoint: endpoint},
		{XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint},
		{XksProxyVpcEndpointServiceName: aws.String(vpcService)},
		{XksProxyVpcEndpointServiceOwner: aws.String(account)},
	} {
		wantError(t, update(in), storeState, "only while the custom key store is disconnected")
	}
	for _, in := range []kms.UpdateCustomKeyStoreInput{{KeyStorePassword: aws.String("1234567")}, {CloudHsmClusterId: aws.String(clusterID)}} {
		wantError(t, update(in), "ValidationException", "is not valid for a custom key store of type EXTERNAL_KEY_STORE")
	}
	disconnect(t, c, storeID)
	vpc := types.XksProxyConnectivityTypeVpcEndpointService
	mine := aws.String(vpcService + "b")
	wantError(t, update(kms.UpdateCustomKeyStoreInput{XksProxyVpcEndpointServiceName: mine}), "ValidationException", "only when XksProxyConnectivity")
	wantError(t, update(kms.UpdateCustomKeyStoreInput{XksProxyConnectivity: vpc, XksProxyVpcEndpointServiceName: mine}), "ValidationException", "XksProxyUriEndpoint is required")
	wantError(t, update(kms.UpdateCustomKeyStoreInput{XksProxyConnectivity: vpc, XksProxyUriEndpoint: endpoint}), "ValidationException", "XksProxyVpcEndpointServiceName is required")
	wantCode(t, update(kms.UpdateCustomKeyStoreInput{XksProxyConnectivity: vpc, XksProxyUriEndpoint: endpoint, XksProxyVpcEndpointServiceName: aws.String(vpcService)}),
		"XksProxyVpcEndpointServiceInUseException")
	wantCode(t, update(kms.UpdateCustomKeyStoreInput{XksProxyUriEndpoint: other.XksProxyUriEndpoint}), "XksProxyUriInUseException")
	wantCode(t, update(kms.UpdateCustomKeyStoreInput{XksProxyUriEndpoint: other.XksProxyUriEndpoint, XksProxyUriPath: aws.String("/c" + xks.APIPath)}),
		"XksProxyUriEndpointInUseException")
	if err := update(kms.UpdateCustomKeyStoreInput{XksProxyConnectivity: vpc, XksProxyUriEndpoint: endpoint, XksProxyVpcEndpointServiceName: mine}); err != nil {
		t.Fatal(err)
	}
	p := describeStore(t, c, storeID).XksProxyConfiguration
	if p.Connectivity != vpc || *p.UriEndpoint != *endpoint || *p.VpcEndpointServiceName != *mine || *p.VpcEndpointServiceOwner != account {
		t.Errorf("%+v", p)
	}
	connect(t, c, storeID)
	wantPlaintext(t, c, blob, nil, "hello")
	disconnect(t, c, storeID)
	if err := update(kms.UpdateCustomKeyStoreInput{XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint, XksProxyUriEndpoint: aws.String(r.server.URL)}); err != nil {
		t.Fatal(err)
	}
	if p := describeStore(t, c, storeID).XksProxyConfiguration; p.VpcEndpointServiceName != nil || p.VpcEndpointServiceOwner != nil {
		t.Errorf("%+v", p)
	}
	f.reopen()
	connect(t, f.client(), storeID)
	wantPlaintext(t, f.client(), blob, nil, "hello")
}

func TestDeleteCustomKeyStore(t *testing.T) {
	r := newProxyRig(t)
	c := newEngine(t, r.use).client()
	r.generate("external")
	storeID := r.connected(c, "xks")
	remove := func(storeID *string) error {
		_, err := c.DeleteCustomKeyStore(t.Context(), &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: storeID})
		return err
	}
	wantCode(t, remove(storeID), storeState)
	externalKey(t, c, storeID, "external")
	disconnect(t, c, storeID)
	_, err := c.DisconnectCustomKeyStore(t.Context(), &kms.DisconnectCustomKeyStoreInput{CustomKeyStoreId: storeID})
	wantCode(t, err, storeState)
	wantCode(t, remove(storeID), "CustomKeyStoreHasCMKsException")

	empty := must(c.CreateCustomKeyStore(t.Context(), r.input("empty", prefixB))).CustomKeyStoreId
	if err := remove(empty); err != nil {
		t.Fatal(err)
	}
	wantCode(t, remove(empty), "CustomKeyStoreNotFoundException")
	must(c.CreateCustomKeyStore(t.Context(), r.input("empty", prefixB))) // what it had is free again
}

// While a store is not connected its proxy is not called, and after a restart it
// is again, even if the proxy is away for the moment, as AWS KMS has it.
func TestDisconnectedExternalStore(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external", "free")
	storeID := r.connected(c, "xks")
	k := externalKey(t, c, storeID, "external")
	blob := encrypt(t, c, k.KeyId, "hello", nil)
	disconnect(t, c, storeID)
	r.asked()
	if s := keyStateOf(t, c, k.KeyId); s != types.KeyStateUnavailable {
		t.Error(s)
	}
	const notConnected = "This KMS key is in a custom key store that is not connected to its external key store proxy."
	_, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	wantError(t, err, keyState, notConnected)
	_, err = c.CreateKey(t.Context(), externalKeyInput(storeID, "free"))
	wantError(t, err, storeState, notConnected)
	_, err = c.GenerateRandom(t.Context(), &kms.GenerateRandomInput{CustomKeyStoreId: storeID, NumberOfBytes: aws.Int32(1)})
	wantCode(t, err, "UnsupportedOperationException")
	if asked := r.asked(); len(asked) != 0 {
		t.Errorf("%+v", asked)
	}
	connect(t, c, storeID)
	r.fails(xks.InternalException)
	f.reopen()
	c = f.client()
	if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeConnected {
		t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
	}
	_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	wantError(t, err, keyState, "it cannot communicate with the external key manager")
	r.answer(nil)
	wantPlaintext(t, c, blob, nil, "hello")
}

func TestKeysNeedAStoreOfTheirKind(t *testing.T) {
	r, h := newProxyRig(t), newClusterRig(t)
	c := newEngine(t, r.use, h.use).client()
	external := r.connected(c, "xks")
	cluster := h.create(c)
	connect(t, c, cluster)
	_, err := c.CreateKey(t.Context(), clusterKeyInput(external))
	wantCode(t, err, "UnsupportedOperationException")
	_, err = c.CreateKey(t.Context(), externalKeyInput(cluster, "external"))
	wantCode(t, err, "UnsupportedOperationException")
}

// A store cannot go away under a key that is being made in it.
func TestDisconnectWaitsForNewKeys(t *testing.T) {
	r := newProxyRig(t)
	c := newEngine(t, r.use).client()
	r.generate("external")
	storeID := r.connected(c, "xks")
	asked, release := make(chan struct{}), make(chan struct{})
	r.answer(func(w http.ResponseWriter, q *http.Request) {
		close(asked)
		<-release
		r.proxy.ServeHTTP(w, q)
	})
	created := make(chan error)
	go func() {
		_, err := c.CreateKey(t.Context(), externalKeyInput(storeID, "external"))
		created <- err
	}()
	<-asked
	gone := make(chan error)
	go func() {
		_, err := c.DisconnectCustomKeyStore(t.Context(), &kms.DisconnectCustomKeyStoreInput{CustomKeyStoreId: storeID})
		gone <- err
	}()
	for describeStore(t, c, storeID).ConnectionState != types.ConnectionStateTypeDisconnecting {
		select {
		case err := <-gone:
			t.Fatal("it did not wait:", err)
		default:
		}
	}
	close(release)
	if err := <-created; err != nil {
		t.Error(err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
	_, err := c.DeleteCustomKeyStore(t.Context(), &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: storeID})
	wantCode(t, err, "CustomKeyStoreHasCMKsException")
}
