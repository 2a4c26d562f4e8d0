package kmsapi

import (
	"bytes"
	"encoding/xml"
	"net/http"
	"net/url"
)

// The Query protocol of AWS STS, of which one operation is served.
const (
	getCallerIdentity = "GetCallerIdentity"
	stsVersion        = "2011-06-15"
	stsNamespace      = "https://sts.amazonaws.com/doc/2011-06-15/"
)

// callerIdentity serves GetCallerIdentity.
func (c *call) callerIdentity() *failure {
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return refuse(codeMalformedQuery, "The request body must be a form.")
	}
	action, version := form["Action"], form["Version"]
	if len(action) != 1 || action[0] != getCallerIdentity || len(version) != 1 || version[0] != stsVersion {
		return refuse(codeInvalidAction, "Could not find this operation for this version: only %s of version %s is served.",
			getCallerIdentity, stsVersion)
	}
	c.action = getCallerIdentity
	caller := &c.identity.caller
	x := xmlWriter{buf: bytes.NewBuffer(c.out[:0])}
	x.raw(`<GetCallerIdentityResponse xmlns="` + stsNamespace + `"><GetCallerIdentityResult>`)
	x.element("Arn", caller.ARN)
	x.element("UserId", caller.UserID)
	x.element("Account", caller.Account)
	x.raw(`</GetCallerIdentityResult><ResponseMetadata>`)
	x.element("RequestId", c.id)
	x.raw(`</ResponseMetadata></GetCallerIdentityResponse>`)
	c.out = x.buf.Bytes()
	return nil
}

// xmlWriter writes what needs no more than elements with text in them.
type xmlWriter struct{ buf *bytes.Buffer }

func (x xmlWriter) raw(s string) { x.buf.WriteString(s) }

func (x xmlWriter) element(name, text string) {
	x.raw("<" + name + ">")
	_ = xml.EscapeText(x.buf, []byte(text)) // a buffer takes everything
	x.raw("</" + name + ">")
}

// forQuery gives the failure the code and the status that the Query protocol
// has for what AWS JSON calls otherwise.
func (f *failure) forQuery() {
	switch f.code {
	case codeMissingToken:
		f.code, f.status = "MissingAuthenticationToken", http.StatusForbidden
	case codeIncomplete:
		f.code = "IncompleteSignature"
	case codeSignature:
		f.code, f.status = "SignatureDoesNotMatch", http.StatusForbidden
	case codeUnrecognized:
		f.code, f.status = "InvalidClientTokenId", http.StatusForbidden
	case codeThrottling:
		f.code = "Throttling"
	case codeUnknown:
		f.code = codeInvalidAction
	case codeInternal:
		f.code = "InternalFailure"
	}
}

// appendXML writes the failure as the Query protocol has it.
func (f *failure) appendXML(e *encoder, requestID string) {
	kind := "Sender"
	if f.status >= http.StatusInternalServerError {
		kind = "Receiver"
	}
	x := xmlWriter{buf: bytes.NewBuffer(e.buf)}
	x.raw(`<ErrorResponse xmlns="` + stsNamespace + `"><Error>`)
	x.element("Type", kind)
	x.element("Code", f.code)
	x.element("Message", f.message)
	x.raw(`</Error>`)
	x.element("RequestId", requestID)
	x.raw(`</ErrorResponse>`)
	e.buf = x.buf.Bytes()
}
