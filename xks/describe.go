package xks

import (
	"context"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// describe answers GetKeyMetadata.
func (c *call) describe(ctx context.Context, key Key) error {
	description, err := key.Describe(ctx)
	if err != nil {
		return err
	}
	// AWS KMS expects a list: empty, never null.
	answer := MetadataResponse{KeySpec: KeySpecAES256, KeyUsage: []string{}, KeyStatus: KeyEnabled}
	if description.Encrypt {
		answer.KeyUsage = append(answer.KeyUsage, UsageEncrypt)
	}
	if description.Decrypt {
		answer.KeyUsage = append(answer.KeyUsage, UsageDecrypt)
	}
	if description.Disabled {
		answer.KeyStatus = KeyDisabled
	}
	c.out, err = appendJSON(c.out[:0], answer)
	return err
}

// health answers GetHealthStatus: with an error if no token can serve, because
// then nothing that AWS KMS asks next would succeed.
func (c *call) health() *Error {
	fleet := reportable(c.store.Keys.Health())
	serving := func(m ExternalKeyManager) bool { return m.Health != HealthUnavailable }
	if !slices.ContainsFunc(fleet, serving) {
		return refuse(InternalException, "No token can serve: look at the tokens and at the log of the proxy.")
	}
	vendor := c.store.EKMVendor
	if vendor == "" {
		vendor = "PKCS#11"
	}
	var err error
	c.out, err = appendJSON(c.out[:0], HealthResponse{
		ProxyFleetSize: c.state.FleetSize,
		ProxyVendor:    c.state.ProxyVendor,
		ProxyModel:     c.state.ProxyModel,
		EKMVendor:      vendor,
		EKMFleet:       fleet,
	})
	if err != nil {
		return c.fromKeys(err)
	}
	return nil
}

// maxFleet is the most entries of ekmFleetDetails.
const maxFleet = 10

// reportable brings a fleet into the form that AWS KMS accepts: unique ids, and
// at most maxFleet entries. The worst are kept, because they are what an
// operator must see, and one that serves if there is any.
func reportable(all []ExternalKeyManager) []ExternalKeyManager {
	fleet := slices.Clone(all)
	slices.SortStableFunc(fleet, func(a, b ExternalKeyManager) int { return severity(b) - severity(a) })
	seen := map[string]bool{}
	fleet = slices.DeleteFunc(fleet, func(m ExternalKeyManager) bool {
		again := m.ID == "" || seen[m.ID]
		seen[m.ID] = true
		return again
	})
	if len(fleet) > maxFleet {
		fleet[maxFleet-1] = fleet[len(fleet)-1]
		fleet = fleet[:maxFleet]
	}
	for i := range fleet {
		if strings.TrimSpace(fleet[i].Model) == "" {
			fleet[i].Model = "unknown"
		}
	}
	return fleet
}

func severity(m ExternalKeyManager) int {
	switch m.Health {
	case HealthActive:
		return 0
	case HealthDegraded:
		return 1
	}
	return 2
}

// appendJSON appends the JSON form of v.
func appendJSON(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

// maxErrorMessage is the most characters of an errorMessage.
const maxErrorMessage = 511

// appendError appends an error answer. The message is brought into the form
// that the specification demands.
func appendError(dst []byte, e *Error) []byte {
	message := make([]byte, 0, maxErrorMessage)
	for i := 0; i < len(e.Message) && i < maxErrorMessage; i++ {
		ch := e.Message[i]
		if ch < 0x20 || ch > 0x7e {
			ch = '?'
		}
		message = append(message, ch)
	}
	dst, err := appendJSON(dst, ErrorResponse{Name: e.Name, Message: string(message)})
	if err != nil {
		// Two printable strings have a JSON form.
		panic(err)
	}
	return dst
}
