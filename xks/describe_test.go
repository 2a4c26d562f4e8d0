package xks

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestGetKeyMetadata(t *testing.T) {
	p := startProxy(t, nil)
	client := p.client(t, true)
	in := body{"requestMetadata": body{"awsPrincipalArn": "AWS Internal", "kmsOperation": "SomethingNew", "kmsRequestId": "1"}}
	for _, row := range []struct {
		description KeyDescription
		want        string
	}{
		{KeyDescription{Encrypt: true, Decrypt: true}, `{"keySpec":"AES_256","keyUsage":["ENCRYPT","DECRYPT"],"keyStatus":"ENABLED"}`},
		{KeyDescription{Encrypt: true}, `{"keySpec":"AES_256","keyUsage":["ENCRYPT"],"keyStatus":"ENABLED"}`},
		{KeyDescription{Decrypt: true, Disabled: true}, `{"keySpec":"AES_256","keyUsage":["DECRYPT"],"keyStatus":"DISABLED"}`},
		{KeyDescription{}, `{"keySpec":"AES_256","keyUsage":[],"keyStatus":"ENABLED"}`},
	} {
		p.keys.keys["key-1"].description = row.description
		if got := p.post(t, client, keyPath+"metadata", in.json()); got.status != 200 || string(got.body) != row.want {
			t.Errorf("%+v: %d %s, want %s", row.description, got.status, got.body, row.want)
		}
	}
}

func manager(id, health string) ExternalKeyManager {
	return ExternalKeyManager{ID: id, Model: "m", Health: health}
}

func TestGetHealthStatus(t *testing.T) {
	p := startProxy(t, func(c *Config) { c.FleetSize = 2 })
	client, in := p.client(t, true), body{"requestMetadata": body{"kmsRequestId": "1", "kmsOperation": "KmsHealthCheck"}}
	p.keys.health = []ExternalKeyManager{manager("a", HealthActive), manager("b", HealthUnavailable), manager("a", HealthDegraded), {ID: "c", Health: HealthDegraded}}
	var got HealthResponse
	p.post(t, client, "/t1/kms/xks/v1/health", in.json()).decodeInto(t, &got)
	if got.ProxyFleetSize != 2 || got.ProxyVendor != "hyok" || !strings.HasPrefix(got.ProxyModel, "hyok") || got.EKMVendor == "" {
		t.Errorf("%+v", got)
	}
	want := []ExternalKeyManager{manager("b", HealthUnavailable), manager("a", HealthDegraded), {ID: "c", Model: "unknown", Health: HealthDegraded}}
	if !slices.Equal(got.EKMFleet, want) {
		t.Errorf("fleet %+v, want %+v", got.EKMFleet, want)
	}
	for _, fleet := range [][]ExternalKeyManager{nil, {manager("a", HealthUnavailable), manager("b", HealthUnavailable)}} {
		p.keys.health = fleet
		p.post(t, client, "/t1/kms/xks/v1/health", in.json()).wantError(t, InternalException)
	}
}

// Of many tokens the worst are told, and that one serves.
func TestHealthOfManyTokens(t *testing.T) {
	p := startProxy(t, nil)
	p.keys.health = nil
	for i := range 12 {
		p.keys.health = append(p.keys.health, manager(fmt.Sprint(i), HealthUnavailable))
	}
	p.keys.health[3].Health = HealthActive
	var got HealthResponse
	in := body{"requestMetadata": body{"kmsRequestId": "1", "kmsOperation": "KmsHealthCheck"}}
	p.post(t, p.client(t, false), "/t1/kms/xks/v1/health", in.json()).decodeInto(t, &got)
	if len(got.EKMFleet) != 10 || got.EKMFleet[9] != manager("3", HealthActive) || got.EKMFleet[0].Health != HealthUnavailable {
		t.Errorf("fleet %+v", got.EKMFleet)
	}
}
