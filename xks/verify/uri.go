package verify

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/hyok-kms/hyok/xks"
)

// uriChecks are about methods and paths.
func uriChecks() []Check {
	checks := []Check{
		{ID: "uri.length", Section: secOperations, Level: Must,
			Title: "XksProxyUriPath has at most 128 characters, the whole URI at most 256", run: uriLength},
		{ID: "uri.server", Section: secOperations, Level: Should,
			Title: "the server is named by a fully qualified domain name", run: serverName},
	}
	for _, op := range operations() {
		checks = append(checks, Check{ID: "uri.get." + string(op), Section: secOperations, Level: Must,
			Title: "GET of " + op.section() + " is answered with 405", run: getRefused(op)})
	}
	for _, op := range operations() {
		checks = append(checks,
			refuses("uri.prefix."+string(op), secErrors, op.section()+" below an unknown path prefix is InvalidUriPathException",
				Must, op, wrongPath, func(c *call) { c.prefix += "/invalid" }))
	}
	return append(checks,
		refuses("uri.operation", secErrors, "an unknown operation of a key is InvalidUriPathException",
			Must, encrypt, wrongPath, func(c *call) { c.resource = strings.TrimSuffix(c.resource, "/encrypt") + "/sign" }),
		refuses("uri.resource", secErrors, "an unknown resource is InvalidUriPathException",
			Must, health, wrongPath, at(xks.APIPath+"/status")),
		refuses("uri.root", secErrors, "the bare API path is InvalidUriPathException",
			Must, health, wrongPath, at(xks.APIPath)),
		refuses("uri.version", secErrors, "another version of the API is InvalidUriPathException",
			Must, health, wrongPath, at("/kms/xks/v2/health")),
		refuses("uri.no-key", secErrors, "a path without key id is InvalidUriPathException or KeyNotFoundException",
			Must, metadata, noSuchKeyForm, at(xks.APIPath+"/keys/metadata")),
		refuses("uri.trailing-slash", secErrors, "a slash at the end is InvalidUriPathException",
			Should, health, wrongPath, at(xks.APIPath+"/health/")),
		refuses("uri.case", secErrors, "paths are case-sensitive",
			Should, health, wrongPath, at(xks.APIPath+"/Health")),
	)
}

func uriLength(_ context.Context, p *prober) error {
	if n := len(p.prefix + xks.APIPath); n > 128 {
		return fmt.Errorf("want a path of at most 128 characters up to %s, got %d", xks.APIPath, n)
	}
	if n := len(p.base.String() + p.prefix + metadata.resource(p.target.KeyID)); n > 256 {
		return fmt.Errorf("want URIs of at most 256 characters, got %d for GetKeyMetadata of the key given", n)
	}
	return nil
}

// serverName is a SHOULD here although the specification says MUST, because it
// is a property of where the proxy is deployed and not of the proxy.
func serverName(_ context.Context, p *prober) error {
	host := p.base.Hostname()
	ip := net.ParseIP(host)
	switch {
	case host == "localhost", ip != nil && ip.IsLoopback():
		return skipf("the proxy is on this machine (%s)", host)
	case ip != nil, !strings.Contains(strings.Trim(host, "."), "."):
		return fmt.Errorf("want a fully qualified domain name, got %s", host)
	}
	return nil
}

func getRefused(op operation) func(context.Context, *prober) error {
	return func(ctx context.Context, p *prober) error {
		a := p.ask(ctx, op, method(http.MethodGet))
		if a.err != nil || a.status != http.StatusMethodNotAllowed {
			return fmt.Errorf("want HTTP 405, got %s", a.describe())
		}
		return nil
	}
}

// keyIDChecks ask one operation about keys that do not exist.
func keyIDChecks(op operation) []Check {
	id := string(op)
	key := func(key string) edit { return at(op.resource(key)) }
	return []Check{
		refuses(id+".unknown-key", secErrors, "a key that does not exist is KeyNotFoundException", Must, op, noKey, key(unknownKey)),
		// The tilde needs no escaping in a path or a signature, but is not
		// allowed in a key id.
		refuses(id+".illegal-key-id", secOperations, "a key id with another character than A-Z a-z 0-9 - . _ is refused",
			Must, op, noSuchKeyForm, key("key~id")),
		refuses(id+".long-key-id", secOperations, "a key id of 129 characters is refused",
			Must, op, noSuchKeyForm, key(strings.Repeat("k", 129))),
		refuses(id+".longest-key-id", secOperations, "a key id of 128 characters is looked up (KeyNotFoundException)",
			Must, op, noKey, key(strings.Repeat("k", 128))),
	}
}
