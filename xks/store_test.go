package xks

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestConfigRefused(t *testing.T) {
	second := func(c *Config, change func(*Store)) {
		s := c.Stores[0]
		s.Name, s.Prefix, s.Credentials = "second", "/t2", []Credential{NewCredential()}
		change(&s)
		c.Stores = append(c.Stores, s)
	}
	for name, row := range map[string]struct {
		change func(*Config)
		want   string // in the error; empty: accepted
	}{
		"as it is":          {func(*Config) {}, ""},
		"no prefix":         {func(c *Config) { c.Stores[0].Prefix = "" }, ""},
		"longest prefix":    {func(c *Config) { c.Stores[0].Prefix = "/" + strings.Repeat("p", 116) }, ""},
		"two stores":        {func(c *Config) { second(c, func(*Store) {}) }, ""},
		"two credentials":   {func(c *Config) { c.Stores[0].Credentials = append(c.Stores[0].Credentials, NewCredential()) }, ""},
		"no store":          {func(c *Config) { c.Stores = nil }, "no key store"},
		"negative":          {func(c *Config) { c.Deadline = -1 }, "negative"},
		"no name":           {func(c *Config) { c.Stores[0].Name = "" }, "name"},
		"no keys":           {func(c *Config) { c.Stores[0].Keys = nil }, "keys"},
		"no allow":          {func(c *Config) { c.Stores[0].Allow = nil }, "keys"},
		"no credential":     {func(c *Config) { c.Stores[0].Credentials = nil }, "credential"},
		"bad credential":    {func(c *Config) { c.Stores[0].Credentials = []Credential{{"x", "y"}} }, "access key id"},
		"empty Region":      {func(c *Config) { c.Stores[0].Regions = []string{""} }, "Region"},
		"prefix too long":   {func(c *Config) { c.Stores[0].Prefix = "/" + strings.Repeat("p", 117) }, "characters"},
		"no leading slash":  {func(c *Config) { c.Stores[0].Prefix = "p" }, "slash"},
		"trailing slash":    {func(c *Config) { c.Stores[0].Prefix = "/p/" }, "slash"},
		"double slash":      {func(c *Config) { c.Stores[0].Prefix = "/p//q" }, "slash"},
		"other characters":  {func(c *Config) { c.Stores[0].Prefix = "/p.q" }, "character"},
		"same name":         {func(c *Config) { second(c, func(s *Store) { s.Name = "main" }) }, "name"},
		"same prefix":       {func(c *Config) { second(c, func(s *Store) { s.Prefix = "/t1" }) }, "prefix"},
		"shared credential": {func(c *Config) { second(c, func(s *Store) { s.Credentials = c.Stores[0].Credentials }) }, "access key id"},
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig(newMemKeys())
			row.change(&config)
			err := config.Validate()
			if row.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want one about %q", err, row.want)
			}
			if err != nil && strings.Contains(err.Error(), testCredential.SecretAccessKey) {
				t.Error("the error tells a secret")
			}
		})
	}
}

// Two stores share neither keys nor credentials.
func TestStoresAreApart(t *testing.T) {
	other, extra := NewCredential(), NewCredential()
	p := startProxy(t, func(c *Config) {
		c.Stores[0].Credentials = append(c.Stores[0].Credentials, extra)
		c.Stores = append(c.Stores, Store{Name: "second", Prefix: "/t1/kms/xks/v1", Keys: newMemKeys("key-2"),
			Allow: func(string) bool { return true }, Credentials: []Credential{other}})
	})
	client, content := p.client(t, true), encryptBody().json()
	for _, row := range []struct {
		path string
		cred Credential
		want ErrorName
	}{
		{keyPath + "encrypt", testCredential, ""},
		{keyPath + "encrypt", extra, ""},
		{keyPath + "encrypt", other, AuthenticationFailedException},
		{"/t1/kms/xks/v1" + APIPath + "/keys/key-2/encrypt", other, ""},
		{"/t1/kms/xks/v1" + APIPath + "/keys/key-2/encrypt", testCredential, AuthenticationFailedException},
		{"/t1/kms/xks/v1" + APIPath + "/keys/key-1/encrypt", other, KeyNotFoundException},
	} {
		r := newRequest(t, http.MethodPost, p.url(row.path), content)
		signAt(r, content, row.cred, "us-east-1", time.Now())
		if got := do(t, client, r); row.want == "" {
			got.decodeInto(t, new(EncryptResponse))
		} else {
			got.wantError(t, row.want)
		}
	}
}

func TestReload(t *testing.T) {
	p := startProxy(t, nil)
	client, content := p.client(t, true), encryptBody().json()
	if err := p.server.Reload(Config{}); err == nil {
		t.Error("an empty configuration is accepted")
	}
	p.post(t, client, keyPath+"encrypt", content).decodeInto(t, new(EncryptResponse))
	changed := p.config
	changed.Stores = []Store{p.config.Stores[0]}
	changed.Stores[0].Prefix = "/t3"
	if err := p.server.Reload(changed); err != nil {
		t.Fatal(err)
	}
	p.post(t, client, keyPath+"encrypt", content).wantError(t, InvalidURIPathException)
	p.post(t, client, "/t3/kms/xks/v1/keys/key-1/encrypt", content).decodeInto(t, new(EncryptResponse))
}

// Replacing configuration and certificate fails no request.
func TestReloadUnderLoad(t *testing.T) {
	p := startProxy(t, nil)
	stop, reloaded := make(chan struct{}), make(chan int)
	go func() { reloaded <- p.reloadUntil(t, stop) }()
	t.Run("load", func(t *testing.T) {
		for i := range 4 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				client, content := p.client(t, i%2 == 0), encryptBody().json()
				for range 100 {
					r := newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), content)
					r.Close = i == 3 // one client connects each time
					sign(r, content)
					do(t, client, r).decodeInto(t, new(EncryptResponse))
				}
			})
		}
	})
	close(stop)
	if n := <-reloaded; n < 2 {
		t.Errorf("reloaded %d times: the test proves nothing", n)
	}
}

// reloadUntil reloads again and again and returns how often it did.
func (p *proxy) reloadUntil(t *testing.T, stop <-chan struct{}) (times int) {
	options := TLSOptions{Certificate: p.listener.tls.Load().Certificates[0]}
	for ; ; times++ {
		select {
		case <-stop:
			return times
		default:
		}
		if err := p.server.Reload(p.config); err != nil {
			t.Error(err)
		}
		if err := p.listener.SetTLS(options); err != nil {
			t.Error(err)
		}
	}
}
