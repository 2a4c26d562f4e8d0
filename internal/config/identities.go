package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Identity is who may call the embedded KMS. Its String, GoString and LogValue
// forms leave the secrets out.
type Identity struct {
	AccessKeyID     string    // 1 to 128 of a-z, A-Z, 0-9 and '_'
	SecretAccessKey string    // 1 to 256 printable ASCII characters but the blank
	SessionToken    string    // that requests must carry, up to 4096 of the same; empty for none
	Account         string    // 12 digits
	ARN             string    // of the principal, an IAM or STS one of the account; Load gives the root's where the file has none
	UserID          string    // of the principal, up to 256 characters; empty where the file does not say
	Created         time.Time // UTC; zero where the file does not say
}

// The forms of an Identity. An ARN is one that AWS KMS takes as a principal
// (PrincipalIdType), and one that can sign a request.
var (
	accessKeyIDForm = regexp.MustCompile(`^\w{1,128}$`)
	accountForm     = regexp.MustCompile(`^[0-9]{12}$`)
	principalForm   = regexp.MustCompile(`^arn:aws[a-z-]*:(?:iam::([0-9]{12}):(?:root|(?:user|role)/[\w+=,.@:/-]+)|sts::([0-9]{12}):(?:assumed-role|federated-user)/[\w+=,.@:/-]+)$`)
	userIDForm      = regexp.MustCompile(`^[\w+=,.@:-]{0,256}$`)
)

// Most characters of the other members.
const (
	maxSecret       = 256
	maxSessionToken = 4096
	maxPrincipal    = 256
)

// identitiesFile is the JSON of an identities file.
type identitiesFile struct {
	Identities []identityRecord `json:"identities"`
}

// identityRecord is an Identity with the names of the file.
type identityRecord struct {
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"`
	SessionToken    string    `json:"sessionToken,omitzero"`
	Account         string    `json:"account"`
	ARN             string    `json:"arn,omitzero"`
	UserID          string    `json:"userId,omitzero"`
	Created         time.Time `json:"created,omitzero"`
}

// Validate reports everything that is wrong with the identity. The error repeats
// nothing of it, as a secret may be in the wrong place.
func (id Identity) Validate() error {
	var errs []error
	id.check(func(member, message string) { errs = append(errs, errors.New(member+" "+message)) })
	return errors.Join(errs...)
}

// check calls fail for each member that is wrong, by its name in the file.
func (id Identity) check(fail func(member, message string)) {
	if !accessKeyIDForm.MatchString(id.AccessKeyID) {
		fail("accessKeyId", "must be 1 to 128 of a-z, A-Z, 0-9 and '_'")
	}
	if !printable(id.SecretAccessKey, 1, maxSecret) {
		fail("secretAccessKey", "must be 1 to 256 printable ASCII characters without blanks")
	}
	if !printable(id.SessionToken, 0, maxSessionToken) {
		fail("sessionToken", "must be left out, or up to 4096 printable ASCII characters without blanks")
	}
	good := accountForm.MatchString(id.Account)
	if !good {
		fail("account", "must be 12 digits, as text")
	}
	switch account, ok := AccountOf(id.ARN); {
	case id.ARN == "" || id.ARN == rootOf(id.Account): // as good as the account
	case !ok:
		fail("arn", "must be that of a principal, such as arn:aws:iam::111122223333:user/alice: "+
			"root, user/… or role/… of iam, assumed-role/… or federated-user/… of sts, up to 256 characters")
	case good && account != id.Account:
		fail("arn", "must have the account that is in account")
	}
	if !userIDForm.MatchString(id.UserID) {
		fail("userId", "must be left out, or up to 256 of a-z, A-Z, 0-9 and _+=,.@:-")
	}
}

// printable reports whether s has so many printable ASCII characters, and no
// blanks or others.
func printable(s string, least, most int) bool {
	return least <= len(s) && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// AccountOf returns the account of a principal's ARN, and whether that can be the
// ARN of an [Identity].
func AccountOf(arn string) (account string, ok bool) {
	m := principalForm.FindStringSubmatch(arn)
	if m == nil || len(arn) > maxPrincipal {
		return "", false
	}
	return m[1] + m[2], true
}

func rootOf(account string) string { return "arn:aws:iam::" + account + ":root" }

// withARN returns the identity with the default of its ARN, the account's root.
func (id Identity) withARN() Identity {
	id.ARN = cmp.Or(id.ARN, rootOf(id.Account))
	return id
}

// readIdentities fills in the identities of the embedded KMS.
func (c *Config) readIdentities() []error {
	if c.KMS == nil || c.KMS.IdentitiesFile == "" { // reported already
		return nil
	}
	var errs []error
	c.KMS.Identities, errs = loadIdentities(c.KMS.IdentitiesFile)
	return errs
}

// loadIdentities reads an identities file that its owner alone can reach.
func loadIdentities(path string) ([]Identity, []error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, []error{err}
	}
	defer clear(data)
	return parseIdentities(path, data)
}

func parseIdentities(path string, data []byte) ([]Identity, []error) {
	var file identitiesFile
	if err := json.Unmarshal(data, &file, json.RejectUnknownMembers(true)); err != nil {
		return nil, []error{jsonError(path, data, err,
			`{"identities": [{"accessKeyId": "…", "secretAccessKey": "…", "account": "111122223333", "arn": "…", "created": "2026-01-02T15:04:05Z"}]}, where sessionToken and userId may be added and arn and created left out`)}
	}
	var all []Identity
	var errs []error
	first := make(map[string]int) // access key id to its index
	for i, r := range file.Identities {
		id := Identity(r)
		id.Created = id.Created.UTC()
		fail := func(member, message string) {
			errs = append(errs, &Error{File: path, Name: fmt.Sprintf("identities[%d].%s", i, member), Message: message})
		}
		id.check(fail)
		if other, taken := first[id.AccessKeyID]; taken {
			fail("accessKeyId", fmt.Sprintf("must be another one than that of identities[%d]", other))
		} else {
			first[id.AccessKeyID] = i
		}
		all = append(all, id.withARN())
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return all, nil
}

// encodeIdentities is the inverse of parseIdentities.
func encodeIdentities(identities []Identity) ([]byte, error) {
	file := identitiesFile{Identities: []identityRecord{}}
	for _, id := range identities {
		file.Identities = append(file.Identities, identityRecord(id))
	}
	data, err := json.Marshal(file, jsontext.WithIndent("  "))
	if err != nil {
		return nil, errors.New("identities cannot be written as JSON") // the library's text may quote one
	}
	return append(data, '\n'), nil
}

// String returns the access key id alone.
func (id Identity) String() string { return id.AccessKeyID }

// GoString returns the access key id alone.
func (id Identity) GoString() string { return "config.Identity{" + id.AccessKeyID + "}" }

// LogValue returns the access key id alone.
func (id Identity) LogValue() slog.Value { return slog.StringValue(id.AccessKeyID) }
