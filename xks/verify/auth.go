package verify

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// authChecks are about SigV4. Those of one operation only use Encrypt, which
// is worth the most to somebody without the secret.
func authChecks() []Check {
	var checks []Check
	for _, op := range operations() {
		checks = append(checks,
			unsigned("missing."+string(op), op.section()+" without Authorization", op, authorization(func(string) string { return "" })),
			unsigned("access-key-id."+string(op), op.section()+" under an unknown access key id", op,
				signed(func(s *signing) {
					s.credential.AccessKeyID = "INVALID" + s.credential.AccessKeyID[:min(20, len(s.credential.AccessKeyID))]
				})),
			unsigned("secret."+string(op), op.section()+" signed with another secret", op, wrongSecret),
		)
	}
	return slices.Concat(checks, scopeChecks(), authorizationChecks(), dateChecks(), signedHeaderChecks(), tamperChecks(), authOrderChecks())
}

// unsigned is a check that a request is refused for its signature.
func unsigned(id, title string, op operation, edits ...edit) Check {
	return refuses("auth."+id, secSigV4, title+" is AuthenticationFailedException", Must, op, unauthenticated, edits...)
}

func authorization(change func(string) string) edit {
	return signed(func(s *signing) { s.header = change })
}

func wrongSecret(c *call) {
	c.signing.credential.SecretAccessKey = "Invalid" + c.signing.credential.SecretAccessKey
}

func scopeChecks() []Check {
	return []Check{
		unsigned("service", "a scope for another service", encrypt, signed(func(s *signing) { s.service = "kms" })),
		unsigned("terminator", "a scope that does not end in aws4_request", encrypt, signed(func(s *signing) { s.terminator = "aws4_reques" })),
		unsigned("scope-date", "a scope for another day than x-amz-date's", encrypt,
			signed(func(s *signing) { s.scopeDay = s.at.AddDate(0, 0, -1).Format(scopeDayFormat) })),
		unsigned("scope-region", "another Region in the scope than the one signed for", encrypt, authorization(func(h string) string {
			_, rest, _ := strings.Cut(h, "Credential=")
			return strings.Replace(h, strings.Split(rest, "/")[2], "xx-verify-1", 1)
		})),
	}
}

func authorizationChecks() []Check {
	cutSignature := func(n int) edit {
		return signed(func(s *signing) { s.signature = func(hex string) string { return hex[:n] } })
	}
	cutPart := func(name string) edit {
		return authorization(func(h string) string {
			scheme, rest, _ := strings.Cut(h, " ")
			parts := slices.DeleteFunc(strings.Split(rest, ", "), func(part string) bool { return strings.HasPrefix(part, name+"=") })
			return scheme + " " + strings.Join(parts, ", ")
		})
	}
	return []Check{
		unsigned("algorithm", "another algorithm", encrypt, signed(func(s *signing) { s.algorithm = "AWS4-HMAC-SHA512" })),
		unsigned("scheme", "a bearer token", encrypt, authorization(func(string) string { return "Bearer hyok-verify" })),
		unsigned("malformed", "an Authorization header with nothing behind the algorithm", encrypt, authorization(func(string) string { return algorithm })),
		unsigned("no-credential", "an Authorization header without Credential", encrypt, cutPart("Credential")),
		unsigned("no-signed-headers", "an Authorization header without SignedHeaders", encrypt, cutPart("SignedHeaders")),
		unsigned("no-signature", "an Authorization header without Signature", encrypt, cutPart("Signature")),
		unsigned("empty-signature", "an empty signature", encrypt, cutSignature(0)),
		unsigned("truncated-signature", "the first half of the signature", encrypt, cutSignature(32)),
		unsigned("altered-signature", "a signature with another last digit", encrypt, signed(func(s *signing) {
			s.signature = func(hex string) string {
				if strings.HasSuffix(hex, "0") {
					return hex[:len(hex)-1] + "1"
				}
				return hex[:len(hex)-1] + "0"
			}
		})),
	}
}

func dateChecks() []Check {
	shifted := func(by time.Duration) edit { return signed(func(s *signing) { s.date(s.at.Add(by)) }) }
	return []Check{
		should(unsigned("six-minutes-old", "a request six minutes old", encrypt, shifted(-6*time.Minute))),
		should(unsigned("six-minutes-ahead", "a request from six minutes ahead", encrypt, shifted(6*time.Minute))),
		unsigned("day-old", "a request two days old", encrypt, shifted(-48*time.Hour)),
		unsigned("day-ahead", "a request from two days ahead", encrypt, shifted(48*time.Hour)),
		accepts("auth.four-minutes-old", secSigV4, "a request four minutes old is accepted (clock drift)", Should, encrypt, shifted(-4*time.Minute)),
		accepts("auth.four-minutes-ahead", secSigV4, "a request from four minutes ahead is accepted (clock drift)", Should, encrypt, shifted(4*time.Minute)),
		unsigned("no-date", "a request without x-amz-date", encrypt, signed(func(s *signing) {
			s.amzDate, s.headers = "", []string{"host"}
		})),
		unsigned("malformed-date", "an x-amz-date in another format", encrypt, signed(func(s *signing) {
			s.amzDate = s.at.Format(time.RFC3339)
		})),
	}
}

func signedHeaderChecks() []Check {
	withHeader := func(name, value string) edit {
		return func(c *call) {
			c.header.Set(name, value)
			c.signing.addHeader(strings.ToLower(name))
		}
	}
	only := func(headers ...string) edit { return signed(func(s *signing) { s.headers = headers }) }
	return []Check{
		unsigned("host-not-signed", "a signature that leaves out host", encrypt, only("x-amz-date")),
		unsigned("date-not-signed", "a signature that leaves out x-amz-date", encrypt, only("host")),
		accepts("auth.content-type-signed", secSigV4, "further signed headers (content-type) are accepted", Must, encrypt,
			withHeader("Content-Type", "application/json")),
		accepts("auth.header-signed", secSigV4, "further signed headers (x-hyok-verify) are accepted", Must, encrypt,
			withHeader("X-Hyok-Verify", "yes")),
		unsigned("signed-header-altered", "a signed header altered on the way", encrypt, withHeader("X-Hyok-Verify", "yes"),
			tampered(func(r *http.Request) { r.Header.Set("X-Hyok-Verify", "no") })),
		unsigned("signed-header-missing", "a signed header removed on the way", encrypt, withHeader("X-Hyok-Verify", "yes"),
			tampered(func(r *http.Request) { r.Header.Del("X-Hyok-Verify") })),
		unsigned("unsigned-payload", "a signature that leaves out the body (UNSIGNED-PAYLOAD)", encrypt,
			withHeader("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
			signed(func(s *signing) { s.payload = "UNSIGNED-PAYLOAD" })),
	}
}

func tamperChecks() []Check {
	return []Check{
		unsigned("body-altered", "a body altered after signing", encrypt, tampered(func(r *http.Request) {
			setBody(r, []byte(`{"requestMetadata":{},"plaintext":"AAAA","encryptionAlgorithm":"AES_GCM"}`))
		})),
		unsigned("body-extended", "a space appended to the body after signing", health, func(c *call) {
			const body = `{"requestMetadata":{"kmsOperation":"KmsHealthCheck","kmsRequestId":"verify"}}`
			c.raw = []byte(body)
			c.tamper = func(r *http.Request) { setBody(r, []byte(body+" ")) }
		}),
		unsigned("path-altered", "a path altered after signing", metadata, func(c *call) {
			sent := c.prefix + c.resource
			c.resource = metadata.resource(unknownKey)
			c.tamper = func(r *http.Request) { r.URL.Path = sent }
		}),
		unsigned("method-altered", "a method altered after signing", encrypt, method(http.MethodPut),
			tampered(func(r *http.Request) { r.Method = http.MethodPost })),
		unsigned("date-altered", "an x-amz-date altered after signing", encrypt, func(c *call) {
			later := c.signing.at.Add(time.Second).Format(amzDateFormat)
			c.tamper = func(r *http.Request) { r.Header.Set("X-Amz-Date", later) }
		}),
		unsigned("host-altered", "a signature for another host", encrypt,
			signed(func(s *signing) { s.host = "verify.invalid" })),
		// Proxies that never look at the query string lose nothing by it.
		should(unsigned("query-added", "a query string added after signing", health,
			tampered(func(r *http.Request) { r.URL.RawQuery = "verify=1" }))),
	}
}

// authOrderChecks demand that somebody without the secret learns nothing.
func authOrderChecks() []Check {
	return []Check{
		unsigned("before-key", "a wrong signature for a key that does not exist", encrypt, wrongSecret, at(encrypt.resource(unknownKey))),
		should(unsigned("before-body", "a wrong signature over a body that is not JSON", encrypt, wrongSecret, raw("verify"))),
	}
}
