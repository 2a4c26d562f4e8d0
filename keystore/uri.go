package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hyok-kms/hyok/internal/secretfile"
)

// URI names a token, or an object in one, by RFC 7512. The zero value of a
// field means that the URI does not say.
type URI struct {
	Token        string // CKA_LABEL of the token
	Serial       string
	Manufacturer string
	Model        string
	SlotID       *uint  // beware: some modules give a token another slot at each start
	Object       string // label of an object, for key pairs
	ID           []byte // CKA_ID of an object, for key pairs
	ModulePath   string
	// ModuleParameters is the text that some modules want in the reserved argument of
	// C_Initialize, as NSS: an attribute of hyok's own.
	ModuleParameters string
	PINSource        string // file:PATH, a bare path, or env:NAME

	pinValue string
}

// scheme is that of every PKCS#11 URI; as in all URIs its case means nothing.
const scheme = "pkcs11:"

// ParseURI parses a PKCS#11 URI. An attribute that hyok does not use is an
// error rather than ignored, since ignoring it could select another token. The
// error never contains the PIN.
func ParseURI(s string) (URI, error) {
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return URI{}, errors.New(`PKCS#11 URI must begin with "pkcs11:" (RFC 7512)`)
	}
	path, query, _ := strings.Cut(s[len(scheme):], "?")
	var u URI
	seen := map[string]bool{}
	for _, part := range []struct{ text, sep string }{{path, ";"}, {query, "&"}} {
		if part.text == "" {
			continue
		}
		for _, attr := range strings.Split(part.text, part.sep) {
			name, raw, ok := strings.Cut(attr, "=")
			if !ok || name == "" {
				return URI{}, errors.New("PKCS#11 URI has an attribute that is not name=value")
			}
			if seen[name] {
				return URI{}, fmt.Errorf("PKCS#11 URI names %s twice", printable(name))
			}
			seen[name] = true
			value, err := url.PathUnescape(raw)
			if err != nil {
				return URI{}, fmt.Errorf("PKCS#11 URI: the value of %s has a bad percent-encoding", printable(name))
			}
			if err := u.set(part.sep == "&", name, value); err != nil {
				return URI{}, err
			}
		}
	}
	if u.PINSource != "" && u.pinValue != "" {
		return URI{}, errors.New("PKCS#11 URI has a pin-source and a pin-value: leave one of them out (RFC 7512, section 2.4)")
	}
	return u, nil
}

// unsupported says of attributes of RFC 7512 what to do without them.
var unsupported = map[string]string{
	"library-manufacturer": "the module is named by its path: leave this attribute out and add ?module-path=PATH",
	"library-description":  "the module is named by its path: leave this attribute out and add ?module-path=PATH",
	"library-version":      "the module is named by its path: leave this attribute out and add ?module-path=PATH",
	"slot-manufacturer":    "name the token by token=, serial= or slot-id=",
	"slot-description":     "name the token by token=, serial= or slot-id=",
	"module-name":          "the module is named by its path: module-path=PATH",
}

// set assigns one attribute; inQuery tells where it stood.
func (u *URI) set(inQuery bool, name, value string) error {
	targets := map[string]*string{
		"token": &u.Token, "serial": &u.Serial, "manufacturer": &u.Manufacturer, "model": &u.Model, "object": &u.Object,
	}
	if inQuery {
		targets = map[string]*string{"module-path": &u.ModulePath, "module-parameters": &u.ModuleParameters, "pin-source": &u.PINSource, "pin-value": &u.pinValue}
	}
	if target, ok := targets[name]; ok {
		if value == "" {
			return fmt.Errorf("PKCS#11 URI: %q is empty", name)
		}
		switch name {
		case "token", "serial", "manufacturer", "model":
			// Some programs print the padding of the token's field, %00 or %20, too.
			value = trim(value)
		case "module-path":
			value = localPath(value)
		case "module-parameters":
			if strings.ContainsRune(value, 0) {
				return errors.New("PKCS#11 URI: module-parameters has a zero byte")
			}
		}
		*target = value
		return nil
	}
	if hint := unsupported[name]; hint != "" {
		return fmt.Errorf("PKCS#11 URI: attribute %s is not supported: %s", name, hint)
	}
	switch {
	case name == "slot-id" && !inQuery:
		n, err := strconv.ParseUint(value, 10, 0)
		if err != nil {
			return errors.New("PKCS#11 URI: slot-id must be a decimal number")
		}
		slot := uint(n)
		u.SlotID = &slot
	case name == "id" && !inQuery:
		u.ID = []byte(value)
	case name == "type" && !inQuery:
		if value != "private" {
			return errors.New(`PKCS#11 URI: the only type supported is "private"`)
		}
	default:
		return fmt.Errorf("PKCS#11 URI: attribute %s is not supported here (path: token, serial, manufacturer, model, slot-id, object, id, type; query: module-path, module-parameters, pin-source, pin-value)", printable(name))
	}
	return nil
}

// CheckToken reports whether u says which token of which module it means, and
// nothing of an object in it.
func (u URI) CheckToken() error {
	if u.Object != "" || len(u.ID) > 0 {
		return fmt.Errorf("%s names an object, and a whole token is wanted: leave object= and id= out", u)
	}
	return u.Check()
}

// Check reports whether u says which token of which module it means.
func (u URI) Check() error {
	switch {
	case !u.namesToken():
		return fmt.Errorf("%s names no token: add token=, serial= or slot-id=", u)
	case u.ModulePath == "":
		return fmt.Errorf("%s names no module: add ?module-path=/path/to/module.so", u)
	}
	return nil
}

// namesToken reports whether u says which token it means.
func (u URI) namesToken() bool {
	return u.Token != "" || u.Serial != "" || u.SlotID != nil
}

// String returns the URI in canonical order with a PIN value replaced by "...".
func (u URI) String() string {
	var path, query []string
	add := func(to *[]string, name, value string) {
		if value != "" {
			*to = append(*to, name+"="+escape(value, to == &query))
		}
	}
	add(&path, "token", u.Token)
	add(&path, "serial", u.Serial)
	add(&path, "manufacturer", u.Manufacturer)
	add(&path, "model", u.Model)
	if u.SlotID != nil {
		path = append(path, fmt.Sprintf("slot-id=%d", *u.SlotID))
	}
	add(&path, "object", u.Object)
	add(&path, "id", string(u.ID))
	add(&query, "module-path", u.ModulePath)
	add(&query, "module-parameters", u.ModuleParameters)
	add(&query, "pin-source", u.PINSource)
	if u.pinValue != "" {
		query = append(query, "pin-value=...")
	}
	s := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

// escape percent-encodes what may not stand in a value, RFC 7512 section 2.3,
// and leaves the slashes of a path in the query.
func escape(value string, inQuery bool) string {
	text := url.PathEscape(value)
	if inQuery {
		text = strings.NewReplacer("%2F", "/", "&", "%26").Replace(text)
	}
	return text
}

// GoString is String: a PIN must not reach a debug print either.
func (u URI) GoString() string { return u.String() }

// NamesPIN reports whether the URI says where the PIN comes from.
func (u URI) NamesPIN() bool { return u.PINSource != "" || u.pinValue != "" }

// PIN reads the user PIN that the URI points to; relative paths are below dir.
// A pin-value is refused unless allowValue is set, since a URI stands in
// configuration files and process lists.
func (u URI) PIN(dir string, allowValue bool) (string, error) {
	switch {
	case u.pinValue != "" && !allowValue:
		return "", errors.New("PKCS#11 URI has a pin-value, which is not allowed here: put the PIN in a file of mode 0600 and name it by pin-source")
	case u.pinValue != "":
		return u.pinValue, nil
	case strings.HasPrefix(u.PINSource, "|"):
		return "", errors.New("PKCS#11 URI: a pin-source that is a command is not supported: use file:PATH or env:NAME")
	case strings.HasPrefix(u.PINSource, "env:"):
		name := strings.TrimPrefix(u.PINSource, "env:")
		pin, ok := os.LookupEnv(name)
		if !ok || pin == "" {
			return "", fmt.Errorf("the environment variable %s, named as pin-source, is not set", printable(name))
		}
		return pin, nil
	case u.PINSource != "":
		return readPIN(u.PINSource, dir)
	}
	return "", errors.New("PKCS#11 URI names no pin-source: add ?pin-source=file:PATH")
}

// pinPath is the path of the file that a pin-source names.
func pinPath(source, dir string) string {
	path := localPath(source)
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return path
}

// localPath is the path that a bare path or a file URI (RFC 8089) names: file:PATH,
// file:///PATH or file://localhost/PATH.
func localPath(source string) string {
	const scheme, host = "file:", "//localhost/"
	if len(source) < len(scheme) || !strings.EqualFold(source[:len(scheme)], scheme) {
		return source
	}
	path := source[len(scheme):]
	if len(path) >= len(host) && strings.EqualFold(path[:len(host)], host) {
		return path[len(host)-1:]
	}
	return strings.TrimPrefix(path, "//")
}

// readPIN reads the first line of the file that a pin-source names.
func readPIN(source, dir string) (string, error) {
	path := pinPath(source, dir)
	data, err := secretfile.Read(path)
	if err != nil {
		return "", fmt.Errorf("read the PIN: %w", err)
	}
	defer clear(data)
	text, err := withoutMark(data)
	if err != nil {
		return "", fmt.Errorf("the PIN file %s %w", path, err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	pin := string(bytes.TrimSuffix(line, []byte("\r")))
	if pin == "" {
		return "", fmt.Errorf("the PIN file %s is empty", path)
	}
	return pin, nil
}

// withoutMark returns a text without the byte order mark that some editors put before
// it.
func withoutMark(text []byte) ([]byte, error) {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return nil, errors.New("is text in UTF-16: save it as UTF-8 or ASCII")
	}
	return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), nil
}

// printable bounds what an error repeats of its input.
func printable(s string) string {
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	return strconv.QuoteToASCII(s)
}
