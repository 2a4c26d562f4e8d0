package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/hyok-kms/hyok/xks"
)

func encryptMutations() map[string]mutation {
	const cdiv = "ciphertextDataIntegrityValue"
	with := func(name string, value func([]byte) []byte) fault {
		return succeeds(encrypt, func(body object) {
			if body[name] != nil {
				body[name] = value(decoded(body[name]))
			}
		})
	}
	return map[string]mutation{
		"wrong CDIV": {with(cdiv, func(b []byte) []byte { return flipped(b, 31) }), cdivs},
		"no CDIV":    {succeeds(encrypt, func(body object) { delete(body, cdiv) }), cdivs},
		"CDIV without the AAD": {succeeds(encrypt, func(body object) {
			if body[cdiv] != nil {
				sum := sha256.Sum256(slices.Concat(decoded(body["ciphertextMetadata"]), decoded(body["initializationVector"]),
					decoded(body["ciphertext"]), decoded(body["authenticationTag"])))
				body[cdiv] = sum[:]
			}
		}), "encrypt.cdiv.aad encrypt.cdiv.large"},
		"CDIV always": {succeeds(encrypt, func(body object) { body[cdiv] = make([]byte, 32) }), "encrypt.cdiv" + " but encrypt.cdiv.algorithm"},
		"constant IV": {func(p *testProxy) { p.keys.keys["key"].fixedIV = []byte("twelve bytes") }, "encrypt.fresh-iv"},
		"IV of 16":    {func(p *testProxy) { p.keys.keys["key"].ivSize = 16 }, ""},
		"long metadata": {stacked(with("ciphertextMetadata", func(b []byte) []byte { return append(b, make([]byte, 21-len(b))...) }),
			reads(func(_ *http.Request, body object) {
				if b := decodedOrNil(body["ciphertextMetadata"]); len(b) == 21 {
					body["ciphertextMetadata"] = b[:6]
				}
			})), "encrypt.metadata-length decrypt.metadata.altered " + cdivs},
		"tag of 12 bytes": {stacked(with("authenticationTag", func(b []byte) []byte { return b[:12] }), tagByPrefix()),
			"encrypt.tag-length decrypt.tag.altered decrypt.tag.short decrypt.tag.truncated decrypt.not-base64.authenticationTag " + cdivs},
		"no metadata": {stacked(succeeds(encrypt, func(body object) { delete(body, "ciphertextMetadata") }),
			recalls(func(body, sealed object) {
				if body["ciphertextMetadata"] == nil {
					body["ciphertextMetadata"] = sealed["ciphertextMetadata"]
				}
			})), cdivs},
		"tag in ciphertext": {succeeds(encrypt, func(body object) {
			body["ciphertext"] = append(decoded(body["ciphertext"]), decoded(body["authenticationTag"])...)
		}), "encrypt.ciphertext-length " + cdivs + " " + allDecrypts},
		"plaintext as ciphertext": {succeedsTo(encrypt, func(request, body object) { body["ciphertext"] = request["plaintext"] }),
			"encrypt.not-plaintext " + cdivs + " " + allDecrypts},
		"no more than 4 KiB": {fails(xks.UnsupportedOperationException, func(_ *http.Request, body []byte) bool { return len(body) > 5600 && len(body) < 1<<20 }),
			"encrypt.cdiv.large roundtrip.large-plaintext roundtrip.large-aad roundtrip.large decrypt.aad.last-bit"},
		"oversize is ValidationException": {errorsAre(xks.UnsupportedOperationException, func(a *httptest.ResponseRecorder) {
			a.Code, a.Body = 400, bytes.NewBufferString(`{"errorName":"ValidationException"}`)
		}), "encrypt.oversize"},
		"lenient Base64": {reads(func(_ *http.Request, body object) {
			b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text(body["plaintext"]), "="))
			if err == nil && len(b) > 0 {
				body["plaintext"] = b
			}
		}), "encrypt.plaintext.url-base64 encrypt.plaintext.unpadded"},
		"default plaintext": {reads(func(r *http.Request, body object) {
			if strings.HasSuffix(r.URL.Path, "/encrypt") && (body["plaintext"] == nil || body["plaintext"] == "") {
				body["plaintext"] = "AAAA"
			}
		}), "encrypt.requires.plaintext encrypt.plaintext.null encrypt.plaintext.empty"},
		"any CDIV algorithm": {reads(func(_ *http.Request, body object) {
			if body["ciphertextDataIntegrityValueAlgorithm"] != nil {
				body["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256"
			}
		}), "encrypt.cdiv.algorithm"},
		"any algorithm": {reads(func(r *http.Request, body object) {
			if text(body["encryptionAlgorithm"]) == "AES_CBC" {
				body["encryptionAlgorithm"] = "AES_GCM"
			}
		}), "encrypt.algorithm decrypt.algorithm"},
		"default algorithm": {reads(func(r *http.Request, body object) {
			if body["encryptionAlgorithm"] == nil {
				body["encryptionAlgorithm"] = "AES_GCM"
			}
		}), "encrypt.requires.encryptionAlgorithm decrypt.requires.encryptionAlgorithm"},
	}
}

const cdivs = "encrypt.cdiv.no-aad encrypt.cdiv.aad encrypt.cdiv.large"

// allDecrypts are the checks that need one decryption to succeed.
const allDecrypts = "roundtrip decrypt.accepts decrypt.for"

// damaged are the checks of ciphertext, IV and tag that were altered.
const damaged = "decrypt.ciphertext.altered decrypt.ciphertext.truncated decrypt.ciphertext.extended decrypt.iv.altered decrypt.tag.altered"

// tagByPrefix takes any part of the right tag for the tag.
func tagByPrefix() fault {
	return recalls(func(body, sealed object) {
		if tag := text(body["authenticationTag"]); tag != "" && len(tag) < 24 {
			body["authenticationTag"] = sealed["authenticationTag"]
		}
	})
}

func decryptMutations() map[string]mutation {
	named := func(name xks.ErrorName) fault {
		return errorsAre(xks.InvalidCiphertextException, func(a *httptest.ResponseRecorder) {
			a.Code, a.Body = name.Status(), bytes.NewBufferString(`{"errorName":"`+string(name)+`"}`)
		})
	}
	return map[string]mutation{
		"tag ignored": {func(p *testProxy) { p.keys.keys["key"].trusting = true },
			damaged + " decrypt.aad decrypt.iv.other decrypt.metadata.removed decrypt.other-key"},
		"AAD ignored": {func(p *testProxy) { p.keys.keys["key"].ignoresAAD = true }, "decrypt.aad decrypt.metadata.removed"},
		"metadata not bound": {recalls(func(body, sealed object) { body["ciphertextMetadata"] = sealed["ciphertextMetadata"] }),
			"decrypt.metadata decrypt.not-base64.metadata but decrypt.metadata.added"},
		"bad ciphertext is an internal error": {named(xks.InternalException),
			"decrypt.requires.ciphertext decrypt.requires.initializationVector decrypt.requires.authenticationTag" +
				" decrypt.not-base64 decrypt.number decrypt.aad decrypt.ciphertext decrypt.iv decrypt.tag decrypt.metadata" +
				" decrypt.other-key usage.decrypt-only.decrypt usage.decrypt-only.decrypt-aad" +
				" but decrypt.not-base64.aad decrypt.not-base64.metadata decrypt.metadata.added decrypt.metadata.long"},
		"bad ciphertext is ValidationException": {named(xks.ValidationException),
			damaged + " decrypt.aad decrypt.other-key usage.decrypt-only.decrypt usage.decrypt-only.decrypt-aad" +
				" but decrypt.aad.is-metadata decrypt.aad.has-metadata"},
		"tag compared by prefix": {tagByPrefix(), "decrypt.tag.short decrypt.tag.truncated decrypt.not-base64.authenticationTag"},
		"metadata and AAD joined without lengths": {recalls(func(body, sealed object) {
			if body["ciphertextMetadata"] != nil || body["additionalAuthenticatedData"] == nil {
				return
			}
			if aad, found := bytes.CutSuffix(decoded(body["additionalAuthenticatedData"]), decoded(sealed["ciphertextMetadata"])); found {
				body["additionalAuthenticatedData"], body["ciphertextMetadata"] = aad, sealed["ciphertextMetadata"]
				if len(aad) == 0 {
					delete(body, "additionalAuthenticatedData")
				}
			}
		}), "decrypt.aad.is-metadata decrypt.aad.has-metadata"},
		"plaintext altered": {succeeds(decrypt, func(body object) { body["plaintext"] = flipped(decoded(body["plaintext"]), 0) }), "roundtrip " + cdivs},
	}
}

func requestMutations() map[string]mutation {
	rejects := func(when func(m map[string]any) bool) fault {
		return func(p *testProxy) {
			reads(func(_ *http.Request, body object) {
				if when(inner(body)) {
					body["requestMetadata"] = "rejected"
				}
			})(p)
		}
	}
	length := func(v any) int { return len(text(v)) }
	defaults := func(name string) fault {
		return reads(func(_ *http.Request, body object) {
			if m := inner(body); m != nil && m[name] == nil {
				m[name] = "default"
			}
		})
	}
	each := func(names ...string) string {
		var all []string
		for _, op := range operations() {
			for _, name := range names {
				all = append(all, string(op)+"."+name)
			}
		}
		return strings.Join(all, " ")
	}
	return map[string]mutation{
		"kmsRequestId optional":    {defaults("kmsRequestId"), each("requires.kmsRequestId")},
		"kmsOperation optional":    {defaults("kmsOperation"), each("requires.kmsOperation")},
		"awsPrincipalArn optional": {defaults("awsPrincipalArn"), keyIDNames("requires.awsPrincipalArn")},
		"kmsKeyArn optional":       {defaults("kmsKeyArn"), "encrypt.requires.kmsKeyArn decrypt.requires.kmsKeyArn"},
		"requestMetadata optional": {reads(func(r *http.Request, body object) {
			if m := inner(body); len(m) == 0 {
				body["requestMetadata"] = decrypt.requestMetadata()
			}
		}), each("requires.requestMetadata")},
		"unknown operations rejected": {rejects(func(m map[string]any) bool { return m["kmsOperation"] == "BulkVerify" }), each("accepts.operation")},
		"UUIDs only": {rejects(func(m map[string]any) bool {
			return m != nil && m["kmsRequestId"] != nil && length(m["kmsRequestId"]) != 36
		}), each("accepts.request-id")},
		"unknown members rejected": {rejects(func(m map[string]any) bool { return m["kmsVerify"] != nil }), each("accepts.metadata-member")},
		"short ARNs only": {rejects(func(m map[string]any) bool {
			return length(m["awsPrincipalArn"]) > 2047 || length(m["kmsKeyArn"]) > 2047
		}), keyIDNames("accepts.long-principal accepts.long-key-arn")},
		"principals are ARNs": {rejects(func(m map[string]any) bool {
			p := text(m["awsPrincipalArn"])
			return p != "" && !strings.HasPrefix(p, "arn:")
		}),
			keyIDNames("accepts.principal-internal accepts.principal-service")},
		"no VPC": {rejects(func(m map[string]any) bool { return m["awsSourceVpc"] != nil }), keyIDNames("accepts.optional")},
		"unknown request members rejected": {reads(func(_ *http.Request, body object) {
			if body["hyokVerify"] != nil {
				body["requestMetadata"] = "rejected"
			}
		}), each("accepts.member")},
		"bodies that are no JSON": {answers(func(r *http.Request, a *httptest.ResponseRecorder) {
			if body := readBody(r); a.Code == 400 && (len(body) == 0 || body[0] != '{') {
				a.Code, a.Body = 500, bytes.NewBufferString(`{"errorName":"InternalException"}`)
			}
		}), each("body.empty", "body.not-json", "body.array", "body.string")},
	}
}

func keyMutations() map[string]mutation {
	may := func(id string, d xks.KeyDescription) fault {
		return func(p *testProxy) { p.keys.keys[id].description = d }
	}
	both := xks.KeyDescription{Encrypt: true, Decrypt: true}
	return map[string]mutation{
		"encrypt-only decrypts":     {may("encrypt-only", both), "usage.encrypt-only but usage.encrypt-only.encrypt usage.encrypt-only.encrypt-aad"},
		"decrypt-only encrypts":     {may("decrypt-only", both), "usage.decrypt-only"},
		"impotent does both":        {may("impotent", both), "usage.impotent"},
		"decrypt-only does neither": {may("decrypt-only", xks.KeyDescription{}), "usage.decrypt-only.metadata usage.decrypt-only.decrypt usage.decrypt-only.decrypt-aad"},
		"disabled is not":           {may("disabled", both), "usage.disabled"},
		"CDIV without decrypting": {reads(func(r *http.Request, body object) {
			if strings.Contains(r.URL.Path, "/encrypt-only/") {
				delete(body, "ciphertextDataIntegrityValueAlgorithm")
			}
		}), "usage.encrypt-only.encrypt-cdiv usage.encrypt-only.encrypt-aad-cdiv"},
		"usage is AccessDeniedException": {errorsAre(xks.InvalidKeyUsageException, func(a *httptest.ResponseRecorder) {
			a.Code, a.Body = 403, bytes.NewBufferString(`{"errorName":"AccessDeniedException"}`)
		}), "usage.encrypt-only usage.decrypt-only usage.impotent but usage.encrypt-only.metadata usage.encrypt-only.encrypt usage.encrypt-only.encrypt-aad usage.decrypt-only.metadata usage.decrypt-only.decrypt usage.decrypt-only.decrypt-aad usage.impotent.metadata"},
		"no client certificate needed": {func(p *testProxy) {
			p.tls = func(o *xks.TLSOptions) { o.ClientCAs, o.ClientNames = nil, nil }
		}, "mtls but mtls.accepted"},
		"one key for all": {func(p *testProxy) { p.keys.keys["encrypt-only"].block = p.keys.keys["key"].block }, "decrypt.other-key"},
	}
}
