package proxy_test

import (
	"testing"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
)

// A module's parameters stand in the configuration or in the URI, not in both.
func TestModuleParameters(t *testing.T) {
	const uri, attribute = "pkcs11:token=a?module-path=/m.so", "&module-parameters=in%20URI"
	for _, c := range []struct {
		token config.Token
		want  string // "": refused
	}{
		{config.Token{Name: "a", URI: uri, ModuleParameters: "in configuration"}, "in configuration"},
		{config.Token{Name: "a", URI: uri + attribute}, "in URI"},
		{config.Token{Name: "a", URI: uri + attribute, ModuleParameters: "in configuration"}, ""},
		{config.Token{Name: "a", URI: uri + "&module-parameters=zero%00"}, ""},
	} {
		u, err := proxy.TokenURI(&c.token)
		if (err != nil) != (c.want == "") || err == nil && u.ModuleParameters != c.want {
			t.Errorf("%+v: %q, %v", c.token, u.ModuleParameters, err)
		}
	}
}
