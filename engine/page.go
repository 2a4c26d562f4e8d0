package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/tidwall/btree"
)

// page is a part of a list: what a list operation is asked for.
type page struct {
	listing string // what the marker is for
	limit   int
	after   string // reference of the last item of the page before; empty: the first page
}

// newPage reads the paging parameters of a list operation: usual is the size of
// a page that is not asked for, most the greatest.
func newPage(c *Client, op string, limit *int32, marker *string, usual, most int) (page, error) {
	p := page{listing: op + "/" + c.caller.Account + "/" + c.region, limit: usual}
	if limit != nil {
		p.limit = int(*limit)
		if p.limit < 1 || p.limit > most {
			return p, invalid("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value less than or equal to %d", p.limit, most)
		}
	}
	if marker != nil {
		after, ok := p.open(*marker)
		if !ok {
			return p, &types.InvalidMarkerException{Message: aws.String("The marker is not one that this list has returned.")}
		}
		p.after = after
	}
	return p, nil
}

// A marker is the reference of the last item with a checksum that binds it to the
// list, so that a marker of another list, Region or account is refused rather than
// taken for a place in this one. It is no secret.

func (p page) marker(ref string) *string {
	return aws.String(base64.RawURLEncoding.EncodeToString(append(p.check(ref), ref...)))
}

func (p page) open(marker string) (ref string, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(marker)
	if err != nil || len(b) <= checkSize {
		return "", false
	}
	ref = string(b[checkSize:])
	return ref, hmac.Equal(b[:checkSize], p.check(ref))
}

const checkSize = 8

func (p page) check(ref string) []byte {
	sum := sha256.Sum256([]byte(p.listing + "\x00" + ref))
	return sum[:checkSize]
}

// scan calls add for the items of a page below prefix, in the order of their
// references; add returns false for items that do not count. It returns what
// tells the caller of a next page.
func scan[V any](p page, items *btree.Map[string, V], prefix string, add func(V) bool) (next *string, truncated bool) {
	from, n, last := prefix, 0, ""
	if p.after != "" {
		from = p.after
	}
	items.Ascend(from, func(ref string, v V) bool {
		switch {
		case ref == p.after && p.after != "":
			return true
		case !strings.HasPrefix(ref, prefix):
			return false
		case n == p.limit:
			truncated = true
			return false
		}
		if add(v) {
			n, last = n+1, ref
		}
		return true
	})
	if truncated {
		next = p.marker(last)
	}
	return next, truncated
}
