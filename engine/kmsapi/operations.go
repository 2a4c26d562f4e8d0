package kmsapi

import (
	"context"
	"errors"
	"reflect"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/engine"
)

// operations returns the table of all operations by their names on the wire.
func operations() map[string]*operation {
	table := map[string]*operation{
		"CancelKeyDeletion":                   op(engine.API.CancelKeyDeletion),
		"ConnectCustomKeyStore":               op(engine.API.ConnectCustomKeyStore),
		"CreateAlias":                         op(engine.API.CreateAlias).withoutOutput(),
		"CreateCustomKeyStore":                op(engine.API.CreateCustomKeyStore),
		"CreateGrant":                         op(engine.API.CreateGrant),
		"CreateKey":                           op(engine.API.CreateKey).withGeneration(),
		"Decapsulate":                         op(engine.API.Decapsulate),
		"Decrypt":                             op(engine.API.Decrypt),
		"DeleteAlias":                         op(engine.API.DeleteAlias).withoutOutput(),
		"DeleteCustomKeyStore":                op(engine.API.DeleteCustomKeyStore),
		"DeleteImportedKeyMaterial":           op(engine.API.DeleteImportedKeyMaterial),
		"DeriveSharedSecret":                  op(engine.API.DeriveSharedSecret),
		"DescribeCustomKeyStores":             op(engine.API.DescribeCustomKeyStores),
		"DescribeKey":                         op(engine.API.DescribeKey),
		"DisableKey":                          op(engine.API.DisableKey).withoutOutput(),
		"DisableKeyRotation":                  op(engine.API.DisableKeyRotation).withoutOutput(),
		"DisconnectCustomKeyStore":            op(engine.API.DisconnectCustomKeyStore),
		"EnableKey":                           op(engine.API.EnableKey).withoutOutput(),
		"EnableKeyRotation":                   op(engine.API.EnableKeyRotation).withoutOutput(),
		"Encapsulate":                         op(engine.API.Encapsulate),
		"Encrypt":                             op(engine.API.Encrypt),
		"GenerateDataKey":                     op(engine.API.GenerateDataKey),
		"GenerateDataKeyPair":                 op(engine.API.GenerateDataKeyPair).withGeneration(),
		"GenerateDataKeyPairWithoutPlaintext": op(engine.API.GenerateDataKeyPairWithoutPlaintext).withGeneration(),
		"GenerateDataKeyWithoutPlaintext":     op(engine.API.GenerateDataKeyWithoutPlaintext),
		"GenerateMac":                         op(engine.API.GenerateMac),
		"GenerateRandom":                      op(engine.API.GenerateRandom),
		"GetKeyLastUsage":                     op(engine.API.GetKeyLastUsage),
		"GetKeyPolicy":                        op(engine.API.GetKeyPolicy),
		"GetKeyRotationStatus":                op(engine.API.GetKeyRotationStatus),
		"GetParametersForImport":              op(engine.API.GetParametersForImport).withGeneration(),
		"GetPublicKey":                        op(engine.API.GetPublicKey),
		"ImportKeyMaterial":                   op(engine.API.ImportKeyMaterial),
		"ListAliases":                         op(engine.API.ListAliases),
		"ListGrants":                          op(engine.API.ListGrants),
		"ListKeyPolicies":                     op(engine.API.ListKeyPolicies),
		"ListKeyRotations":                    op(engine.API.ListKeyRotations),
		"ListKeys":                            listKeys(),
		"ListResourceTags":                    op(engine.API.ListResourceTags),
		"ListRetirableGrants":                 op(engine.API.ListRetirableGrants),
		"PutKeyPolicy":                        op(engine.API.PutKeyPolicy).withoutOutput(),
		"ReEncrypt":                           op(engine.API.ReEncrypt),
		"ReplicateKey":                        op(engine.API.ReplicateKey),
		"RetireGrant":                         op(engine.API.RetireGrant).withoutOutput(),
		"RevokeGrant":                         op(engine.API.RevokeGrant).withoutOutput(),
		"RotateKeyOnDemand":                   op(engine.API.RotateKeyOnDemand),
		"ScheduleKeyDeletion":                 op(engine.API.ScheduleKeyDeletion),
		"Sign":                                op(engine.API.Sign),
		"TagResource":                         op(engine.API.TagResource).withoutOutput(),
		"UntagResource":                       op(engine.API.UntagResource).withoutOutput(),
		"UpdateAlias":                         op(engine.API.UpdateAlias).withoutOutput(),
		"UpdateCustomKeyStore":                op(engine.API.UpdateCustomKeyStore),
		"UpdateKeyDescription":                op(engine.API.UpdateKeyDescription).withoutOutput(),
		"UpdatePrimaryRegion":                 op(engine.API.UpdatePrimaryRegion).withoutOutput(),
		"Verify":                              op(engine.API.Verify),
		"VerifyMac":                           op(engine.API.VerifyMac),
	}
	encodePlans, decodePlans := encodePlanner{}, decodePlanner{}
	for name, o := range table {
		o.name = name
		o.decode, o.encode = decodePlans.plan(o.in), encodePlans.plan(o.out)
		if o.beside != nil {
			o.beside.decode = decodePlans.plan(o.beside.members)
		}
	}
	return table
}

// operation is how to serve one operation. It is never changed once its table
// is made.
type operation struct {
	name    string
	in, out reflect.Type // structures of the SDK
	silent  bool         // success has an empty body
	// generates: it may have to wait for a key pair to be generated.
	generates bool
	newInput  func() any // a pointer to an in
	// call calls the method with what newInput returned. The output is a
	// pointer to an out.
	call   func(context.Context, engine.API, any) (any, error)
	decode decodeFunc // of an in
	encode encodeFunc // of an out
	beside *beside    // what it takes beside an in; nil: nothing

	keyMember  int   // the member of in that names the key, or -1
	inSecrets  []int // the members of in that may hold a plaintext
	outSecrets []int
}

// op makes an operation of a method of the API.
func op[In, Out any](method func(engine.API, context.Context, *In, ...func(*kms.Options)) (*Out, error)) *operation {
	o := &operation{in: reflect.TypeFor[In](), out: reflect.TypeFor[Out]()}
	o.newInput = func() any { return new(In) }
	o.call = func(ctx context.Context, api engine.API, in any) (any, error) {
		out, err := method(api, ctx, in.(*In))
		if err != nil {
			return nil, err
		}
		if out == nil {
			return nil, errNoOutput
		}
		return out, nil
	}
	o.keyMember = keyMember(o.in)
	o.inSecrets, o.outSecrets = secrets(o.in), secrets(o.out)
	return o
}

var errNoOutput = errors.New("the operation returned neither an output nor an error")

// withoutOutput marks an operation whose output AWS's model leaves out.
func (o *operation) withoutOutput() *operation {
	o.silent = true
	return o
}

// withGeneration marks an operation that may need a new RSA pair.
func (o *operation) withGeneration() *operation {
	o.generates = true
	return o
}

// keyMember finds the member that names the key, for the log.
func keyMember(in reflect.Type) int {
	for _, name := range []string{"KeyId", "TargetKeyId", "DestinationKeyId"} {
		if field, ok := in.FieldByName(name); ok && field.Type == reflect.TypeFor[*string]() {
			return field.Index[0]
		}
	}
	return -1
}

// secrets finds the blobs that AWS's model calls sensitive. Other blobs of an
// output may be shared by those who made it, so they are left alone. Passwords
// are strings, which cannot be wiped.
func secrets(t reflect.Type) []int {
	var found []int
	for field := range fields(t) {
		switch field.Name {
		case "Plaintext", "PrivateKeyPlaintext", "SharedSecret", "Message":
			if field.Type == reflect.TypeFor[[]byte]() {
				found = append(found, field.Index[0])
			}
		}
	}
	return found
}

// wipe zeroes these blobs of the structure.
func wipe(v reflect.Value, members []int) {
	for _, i := range members {
		clear(v.Field(i).Bytes())
	}
}

// serve decodes the input, calls the operation and encodes its output into
// c.out. Plaintexts are wiped on every way out.
func (o *operation) serve(ctx context.Context, api engine.API, c *call) error {
	in := o.newInput()
	input := reflect.ValueOf(in).Elem()
	defer wipe(input, o.inSecrets)
	if err := c.reader.decode(c.body, input, o.decode); err != nil {
		return err
	}
	if o.keyMember >= 0 {
		if key, ok := input.Field(o.keyMember).Interface().(*string); ok && key != nil {
			c.key = *key
		}
	}
	var more any
	if o.beside != nil {
		var err error
		if more, err = o.beside.read(c.reader, c.body); err != nil {
			return err
		}
	}
	out, err := o.call(ctx, api, in)
	if err != nil {
		return err
	}
	if o.beside != nil {
		o.beside.apply(more, out)
	}
	if o.silent {
		return nil
	}
	output := reflect.ValueOf(out).Elem()
	defer wipe(output, o.outSecrets)
	e := encoder{c.out[:0]}
	o.encode(&e, output)
	c.out = e.buf
	return nil
}
