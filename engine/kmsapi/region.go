package kmsapi

import (
	"maps"
	"strings"
	"sync/atomic"

	"github.com/hyok-kms/hyok/engine"
)

// maxRegion is the most characters of a Region's name. AWS's longest has 15.
const maxRegion = 32

// isRegion reports whether s has the form of a Region's name: two or more
// letters, one or more further words, a number, all joined by hyphens.
func isRegion(s string) bool {
	if len(s) > maxRegion {
		return false
	}
	words := strings.Count(s, "-") + 1
	if words < 3 {
		return false
	}
	for i := 1; ; i++ {
		word, rest, more := strings.Cut(s, "-")
		if !more {
			return all(word, '0', '9')
		}
		if !all(word, 'a', 'z') || i == 1 && len(word) < 2 {
			return false
		}
		s = rest
	}
}

// all reports whether s is made of one or more characters from low to high.
func all(s string, low, high byte) bool {
	for i := range len(s) {
		if s[i] < low || s[i] > high {
			return false
		}
	}
	return s != ""
}

// maxClients is how many Regions' clients are kept for one identity. AWS has
// fewer Regions; who signs for ever more names has clients made anew.
const maxClients = 64

// clients keeps the API of one caller for each Region it was asked in.
type clients struct {
	byRegion atomic.Pointer[map[string]engine.API] // replaced, never changed
}

// get returns the API for the Region, and keeps it if make had to make it; nil if
// make returns that.
func (c *clients) get(region string, make func(region string) engine.API) engine.API {
	current := c.byRegion.Load()
	if current != nil {
		if api, ok := (*current)[region]; ok {
			return api
		}
	}
	region = strings.Clone(region) // it is part of a request's header
	api := make(region)
	if api == nil {
		return nil
	}
	next := map[string]engine.API{region: api}
	if current != nil && len(*current) < maxClients {
		maps.Copy(next, *current)
	}
	// Whoever loses the race makes it again next time.
	c.byRegion.CompareAndSwap(current, &next)
	return api
}
