package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hyok-kms/hyok/xks"
)

// healthChecks are about GetHealthStatus.
func healthChecks() []Check {
	section := health.section()
	var checks []Check
	for _, operation := range []string{"KmsHealthCheck", "CreateCustomKeyStore", "ConnectCustomKeyStore", "UpdateCustomKeyStore"} {
		checks = append(checks, accepts("health.for."+operation, section, "GetHealthStatus for "+operation+" succeeds",
			Must, health, set("requestMetadata.kmsOperation", operation)))
	}
	healthCheck := func(id, title string, level Level, look func(answer) error) Check {
		return Check{ID: "health." + id, Section: section, Title: title, Level: level,
			run: func(ctx context.Context, p *prober) error {
				a := p.ask(ctx, health)
				if err := a.accepted(); err != nil {
					return err
				}
				return look(a)
			}}
	}
	return append(checks,
		healthCheck("vendor", "xksProxyVendor, xksProxyModel and ekmVendor are strings that say something", Must, healthNames),
		healthCheck("fleet-size", "xksProxyFleetSize is an integer greater than zero", Must, fleetSize),
		healthCheck("ekm-count", "ekmFleetDetails has one to ten entries", Must, fleetCount),
		healthCheck("ekm-entries", "each entry of ekmFleetDetails has id and model as strings", Must, fleetEntries),
		healthCheck("ekm-status", "each healthStatus is ACTIVE, DEGRADED or UNAVAILABLE", Must, fleetStatus),
		healthCheck("ekm-unique", "the ids in ekmFleetDetails are unique", Must, fleetUnique),
		healthCheck("ekm-usable", "GetHealthStatus succeeds only if some key manager can serve", Should, fleetUsable),
	)
}

func healthNames(a answer) error {
	for _, name := range []string{"xksProxyVendor", "xksProxyModel", "ekmVendor"} {
		s, err := a.text(name)
		if err != nil {
			return err
		}
		if s == "" {
			return fmt.Errorf("want a name as %s, got an empty string", name)
		}
	}
	return nil
}

func fleetSize(a answer) error {
	m, err := a.members()
	if err != nil {
		return err
	}
	var n int64
	if err := json.Unmarshal(m["xksProxyFleetSize"], &n); err != nil || m["xksProxyFleetSize"].Kind() != '0' || n < 1 {
		return fmt.Errorf("want an integer greater than zero as xksProxyFleetSize, got %s", shorten(string(m["xksProxyFleetSize"])))
	}
	return nil
}

// fleet returns the entries of ekmFleetDetails, undecoded.
func fleet(a answer) ([]map[string]jsontext.Value, error) {
	m, err := a.members()
	if err != nil {
		return nil, err
	}
	var entries []map[string]jsontext.Value
	if err := json.Unmarshal(m["ekmFleetDetails"], &entries); err != nil {
		return nil, fmt.Errorf("want an array of objects as ekmFleetDetails, got %s", shorten(string(m["ekmFleetDetails"])))
	}
	return entries, nil
}

func fleetCount(a answer) error {
	entries, err := fleet(a)
	if err == nil && (len(entries) < 1 || len(entries) > 10) {
		err = fmt.Errorf("want one to ten entries in ekmFleetDetails, got %d", len(entries))
	}
	return err
}

// fleetMember returns one string member of each entry.
func fleetMember(a answer, name string) ([]string, error) {
	entries, err := fleet(a)
	if err != nil {
		return nil, err
	}
	var values []string
	for i, e := range entries {
		var s string
		if err := json.Unmarshal(e[name], &s); err != nil || e[name].Kind() != '"' {
			return nil, fmt.Errorf("want a string as %s of entry %d of ekmFleetDetails, got %s", name, i+1, shorten(string(e[name])))
		}
		values = append(values, s)
	}
	return values, nil
}

func fleetEntries(a answer) error {
	for _, name := range []string{"id", "model"} {
		values, err := fleetMember(a, name)
		if err != nil {
			return err
		}
		if slices.Contains(values, "") {
			return fmt.Errorf("want an %s in each entry of ekmFleetDetails, got an empty string", name)
		}
	}
	return nil
}

func fleetStatus(a answer) error {
	values, err := fleetMember(a, "healthStatus")
	for _, v := range values {
		if v != xks.HealthActive && v != xks.HealthDegraded && v != xks.HealthUnavailable {
			return fmt.Errorf("want ACTIVE, DEGRADED or UNAVAILABLE as healthStatus, got %s", shorten(v))
		}
	}
	return err
}

func fleetUnique(a answer) error {
	ids, err := fleetMember(a, "id")
	if err != nil {
		return err
	}
	slices.Sort(ids)
	if unique := len(slices.Compact(slices.Clone(ids))); unique != len(ids) {
		return fmt.Errorf("want %d different ids, got %d", len(ids), unique)
	}
	return nil
}

func fleetUsable(a answer) error {
	values, err := fleetMember(a, "healthStatus")
	if err == nil && !slices.ContainsFunc(values, func(s string) bool { return s != xks.HealthUnavailable }) {
		err = errors.New("want an error if no key manager can serve, got HTTP 200 with all of them UNAVAILABLE")
	}
	return err
}
