package engine_test

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// Every list and every map of every input counts as absent where it is empty: the
// answer is the same. Those that may not be left out are not looked at.
func TestEmptyCountsAsAbsent(t *testing.T) {
	f := newEngine(t)
	inputs := emptyInputs(t, f.client())
	api := reflect.TypeFor[engine.API]()
	for method := range api.Methods() {
		if method.Name == "Options" {
			continue
		}
		for _, path := range emptiable(method.Type.In(1).Elem()) {
			base := inputs[method.Name]
			if base == nil {
				t.Errorf("%s: no input to try its lists and maps with", method.Name)
				break
			}
			absent := invoke(t.Context(), f.client(), method.Name, base())
			in := base()
			empty(reflect.ValueOf(in).Elem(), path)
			if got := invoke(t.Context(), f.client(), method.Name, in); got != absent {
				t.Errorf("%s with empty %v: %q, and without: %q", method.Name, path, got, absent)
			}
		}
	}
}

// invoke calls an operation and returns what its error says.
func invoke(ctx context.Context, c *engine.Client, name string, in any) string {
	results := reflect.ValueOf(c).MethodByName(name).Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(in)})
	if err, _ := results[1].Interface().(error); err != nil {
		return err.Error()
	}
	return ""
}

// emptiable returns the lists and maps of a structure, and of those that it points
// to, but for required ones.
func emptiable(t reflect.Type) [][]string {
	var paths [][]string
	for i := range t.NumField() {
		field := t.Field(i)
		switch kind := field.Type.Kind(); {
		case !field.IsExported(), slices.Contains([]string{"Operations", "TagKeys"}, field.Name), t == reflect.TypeFor[kms.TagResourceInput]():
		case kind == reflect.Map, kind == reflect.Slice && field.Type.Elem().Kind() != reflect.Uint8:
			paths = append(paths, []string{field.Name})
		case kind == reflect.Pointer && field.Type.Elem().Kind() == reflect.Struct:
			for _, inner := range emptiable(field.Type.Elem()) {
				paths = append(paths, append([]string{field.Name}, inner...))
			}
		}
	}
	return paths
}

// empty makes the list or map of a path an empty one, in structures of its own.
func empty(v reflect.Value, path []string) {
	member := v.FieldByName(path[0])
	if len(path) > 1 {
		if member.IsNil() {
			member.Set(reflect.New(member.Type().Elem()))
		}
		empty(member.Elem(), path[1:])
		return
	}
	if member.Kind() == reflect.Map {
		member.Set(reflect.MakeMap(member.Type()))
	} else {
		member.Set(reflect.MakeSlice(member.Type(), 0, 0))
	}
}

// emptyInputs returns, by operation, what makes an input that is answered.
func emptyInputs(t *testing.T, c *engine.Client) map[string]func() any {
	t.Helper()
	key := func(spec types.KeySpec, usage types.KeyUsageType) *string {
		return aws.String(createKey(t, c, spec, usage))
	}
	symmetric := key(types.KeySpecSymmetricDefault, types.KeyUsageTypeEncryptDecrypt)
	signing := key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)
	agreement := key(types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement)
	mac := key(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac)
	multi := must(c.CreateKey(t.Context(), &kms.CreateKeyInput{MultiRegion: aws.Bool(true)})).KeyMetadata.KeyId
	blob := encrypt(t, c, symmetric, "hello", nil)
	peer := must(c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: agreement})).PublicKey
	message := []byte("message")
	signature := must(c.Sign(t.Context(), &kms.SignInput{KeyId: signing, Message: message, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256})).Signature
	tag := must(c.GenerateMac(t.Context(), &kms.GenerateMacInput{KeyId: mac, Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256})).Mac
	regions := []string{"eu-west-1", "eu-west-2", "eu-west-3", "eu-north-1"}
	return map[string]func() any{
		"CreateGrant": func() any {
			return &kms.CreateGrantInput{
				KeyId: symmetric, GranteePrincipal: aws.String("arn:aws:iam::" + account + ":user/bob"), Operations: []types.GrantOperation{types.GrantOperationDecrypt},
				Constraints: &types.GrantConstraints{EncryptionContextSubset: nil, SourceArn: aws.String("arn:aws:s3:eu-central-1:" + account + ":bucket/b")},
			}
		},
		"CreateKey":   func() any { return &kms.CreateKeyInput{} },
		"Decapsulate": func() any { return &kms.DecapsulateInput{KeyId: symmetric} },
		"Encapsulate": func() any { return &kms.EncapsulateInput{KeyId: symmetric} },
		"Decrypt":     func() any { return &kms.DecryptInput{CiphertextBlob: slices.Clone(blob)} },
		"DeriveSharedSecret": func() any {
			return &kms.DeriveSharedSecretInput{KeyId: agreement, PublicKey: peer, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh}
		},
		"DescribeKey": func() any { return &kms.DescribeKeyInput{KeyId: symmetric} },
		"Encrypt":     func() any { return &kms.EncryptInput{KeyId: symmetric, Plaintext: []byte("hello")} },
		"GenerateDataKey": func() any {
			return &kms.GenerateDataKeyInput{KeyId: symmetric, KeySpec: types.DataKeySpecAes256}
		},
		"GenerateDataKeyWithoutPlaintext": func() any {
			return &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: symmetric, KeySpec: types.DataKeySpecAes256}
		},
		"GenerateDataKeyPair": func() any {
			return &kms.GenerateDataKeyPairInput{KeyId: symmetric, KeyPairSpec: types.DataKeyPairSpecEccNistP256}
		},
		"GenerateDataKeyPairWithoutPlaintext": func() any {
			return &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: symmetric, KeyPairSpec: types.DataKeyPairSpecEccNistP256}
		},
		"GenerateMac": func() any {
			return &kms.GenerateMacInput{KeyId: mac, Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256}
		},
		"GetPublicKey": func() any { return &kms.GetPublicKeyInput{KeyId: signing} },
		"ReEncrypt": func() any {
			return &kms.ReEncryptInput{CiphertextBlob: slices.Clone(blob), DestinationKeyId: symmetric}
		},
		"ReplicateKey": func() any {
			region := regions[0]
			regions = regions[1:]
			return &kms.ReplicateKeyInput{KeyId: multi, ReplicaRegion: &region}
		},
		"Sign": func() any {
			return &kms.SignInput{KeyId: signing, Message: message, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256}
		},
		"Verify": func() any {
			return &kms.VerifyInput{KeyId: signing, Message: message, Signature: signature, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256}
		},
		"VerifyMac": func() any {
			return &kms.VerifyMacInput{KeyId: mac, Message: message, Mac: tag, MacAlgorithm: types.MacAlgorithmSpecHmacSha256}
		},
	}
}
