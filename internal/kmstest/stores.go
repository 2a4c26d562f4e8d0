package kmstest

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// store describes one custom key store.
func (s *suite) store(id *string) types.CustomKeyStoresListEntry {
	s.Helper()
	list := ok(s, s.DescribeCustomKeyStores, &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: id}).CustomKeyStores
	if len(list) != 1 {
		s.Fatalf("key stores %+v", list)
	}
	return list[0]
}

// connect connects a custom key store, which takes its time.
func (s *suite) connect(id *string) {
	s.Helper()
	ok(s, s.ConnectCustomKeyStore, &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: id})
	s.wait("the key store connects", func() bool {
		c := s.store(id)
		if c.ConnectionState == types.ConnectionStateTypeFailed {
			s.Fatalf("the key store failed to connect: %s", c.ConnectionErrorCode)
		}
		return c.ConnectionState == types.ConnectionStateTypeConnected
	})
}

func (s *suite) disconnect(id *string) {
	s.Helper()
	ok(s, s.DisconnectCustomKeyStore, &kms.DisconnectCustomKeyStoreInput{CustomKeyStoreId: id})
	s.wait("the key store disconnects", func() bool { return s.store(id).ConnectionState == types.ConnectionStateTypeDisconnected })
}

// externalKeyStore has keys encrypt twice, here and behind a proxy.
func (s *suite) externalKeyStore() {
	p := s.target.Proxy
	in := func(name string) *kms.CreateCustomKeyStoreInput {
		return &kms.CreateCustomKeyStoreInput{
			CustomKeyStoreName: &name, CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore,
			XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint, XksProxyUriEndpoint: &p.Endpoint, XksProxyUriPath: &p.Path,
			XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{AccessKeyId: &p.AccessKeyID, RawSecretAccessKey: &p.SecretAccessKey},
		}
	}
	wrong := in("wrong path")
	wrong.XksProxyUriPath = aws.String("/of/nobody/kms/xks/v1")
	refused(s, s.CreateCustomKeyStore, wrong, "XksProxyInvalidConfigurationException")
	id := ok(s, s.CreateCustomKeyStore, in("external")).CustomKeyStoreId
	refused(s, s.CreateCustomKeyStore, in("external"), "CustomKeyStoreNameInUseException")
	refused(s, s.CreateCustomKeyStore, in("another"), "XksProxyUriInUseException")

	c := s.store(id)
	s.checkMembers(&c, "ConnectionState CreationDate CustomKeyStoreId CustomKeyStoreName CustomKeyStoreType XksProxyConfiguration")
	s.checkMembers(c.XksProxyConfiguration, "AccessKeyId Connectivity UriEndpoint UriPath")
	if *c.CustomKeyStoreName != "external" || c.ConnectionState != types.ConnectionStateTypeDisconnected || *c.XksProxyConfiguration.AccessKeyId != p.AccessKeyID {
		s.Errorf("key store %+v", c)
	}
	key := &kms.CreateKeyInput{Origin: types.OriginTypeExternalKeyStore, CustomKeyStoreId: id, XksKeyId: &p.Keys[0]}
	refused(s, s.CreateKey, key, "CustomKeyStoreInvalidStateException")
	s.connect(id)
	m := s.create(key)
	s.record.made(m)
	s.checkMembers(m, common+" CustomerMasterKeySpec EncryptionAlgorithms CustomKeyStoreId XksKeyConfiguration")
	if *m.CustomKeyStoreId != *id || *m.XksKeyConfiguration.Id != p.Keys[0] || m.KeyState != types.KeyStateEnabled {
		s.Errorf("key %+v", *m)
	}
	refused(s, s.CreateKey, key, "XksKeyAlreadyInUseException")
	s.notInStores(key)
	s.useExternalKey(m.KeyId, p)
	s.endStore(id, m.KeyId, s.newKeyIn(key, p.Keys[1]))
}

func (s *suite) newKeyIn(in *kms.CreateKeyInput, external string) *string {
	s.Helper()
	second := *in
	second.XksKeyId = &external
	return s.create(&second).KeyId
}

// notInStores is what AWS KMS does not make in custom key stores.
func (s *suite) notInStores(in *kms.CreateKeyInput) {
	s.Helper()
	for _, change := range []func(*kms.CreateKeyInput){
		func(in *kms.CreateKeyInput) { in.MultiRegion = aws.Bool(true) },
		func(in *kms.CreateKeyInput) {
			in.KeySpec, in.KeyUsage = types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify
		},
		func(in *kms.CreateKeyInput) {
			in.KeySpec, in.KeyUsage = types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac
		},
	} {
		changed := *in
		change(&changed)
		refused(s, s.CreateKey, &changed, "UnsupportedOperationException")
	}
	unknown := *in
	unknown.CustomKeyStoreId = aws.String("cks-0123456789abcdef0")
	refused(s, s.CreateKey, &unknown, "CustomKeyStoreNotFoundException")
}

// useExternalKey encrypts twice, and not at all while the proxy's key is off.
func (s *suite) useExternalKey(id *string, p Proxy) {
	s.Helper()
	context := map[string]string{"a": "b"}
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("twice"), EncryptionContext: context})
	decrypt := &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context}
	open := func() {
		s.Helper()
		out := ok(s, s.Decrypt, decrypt)
		s.checkMembers(out, "EncryptionAlgorithm KeyId Plaintext")
		if string(out.Plaintext) != "twice" {
			s.Errorf("decrypted to %q", out.Plaintext)
		}
	}
	open()
	// It is the proxy that finds another context, and KMS does not look further.
	refused(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}, "KMSInvalidStateException")
	p.SetEnabled(p.Keys[0], false)
	s.wait("the external key is refused", func() bool {
		_, err := s.Decrypt(s.Context(), decrypt)
		return hasCode(err, "KMSInvalidStateException")
	})
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")}, "KMSInvalidStateException")
	p.SetEnabled(p.Keys[0], true)
	s.wait("the external key is used again", func() bool {
		_, err := s.Decrypt(s.Context(), decrypt)
		return err == nil
	})
	open()
	refused(s, s.GenerateDataKeyPair, &kms.GenerateDataKeyPairInput{KeyId: id, KeyPairSpec: types.DataKeyPairSpecEccNistP256}, "UnsupportedOperationException")
	refused(s, s.EnableKeyRotation, &kms.EnableKeyRotationInput{KeyId: id}, "UnsupportedOperationException")
}

// endStore disconnects a store, whose keys are then unavailable, connects it
// again and renames it. It cannot be deleted while there are keys in it.
func (s *suite) endStore(id *string, keys ...*string) {
	s.Helper()
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: keys[0], Plaintext: []byte("p")})
	refused(s, s.DeleteCustomKeyStore, &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: id}, "CustomKeyStoreInvalidStateException")
	s.disconnect(id)
	refused(s, s.DeleteCustomKeyStore, &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: id}, "CustomKeyStoreHasCMKsException")
	if got := s.state(keys[0]); got != types.KeyStateUnavailable {
		s.Errorf("without its key store the key is %s", got)
	}
	refused(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}, "KMSInvalidStateException")
	ok(s, s.UpdateCustomKeyStore, &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: id, NewCustomKeyStoreName: aws.String("renamed " + *id)})
	if got := *s.store(id).CustomKeyStoreName; got != "renamed "+*id {
		s.Errorf("key store %s", got)
	}
	s.connect(id)
	if out := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}); string(out.Plaintext) != "p" {
		s.Errorf("decrypted to %q", out.Plaintext)
	}
}

// cloudHSMKeyStore has keys in a token of one's own.
func (s *suite) cloudHSMKeyStore() {
	c := s.target.Cluster
	in := func(name string) *kms.CreateCustomKeyStoreInput {
		return &kms.CreateCustomKeyStoreInput{
			CustomKeyStoreName: &name, CloudHsmClusterId: &c.ID, KeyStorePassword: &c.Password, TrustAnchorCertificate: &c.TrustAnchor,
		}
	}
	unknown := in("unknown")
	unknown.CloudHsmClusterId = aws.String("cluster-zzzzzzzzzzz")
	refused(s, s.CreateCustomKeyStore, unknown, "CloudHsmClusterNotFoundException")
	id := ok(s, s.CreateCustomKeyStore, in("cloudhsm")).CustomKeyStoreId
	refused(s, s.CreateCustomKeyStore, in("another"), "CloudHsmClusterInUseException")
	store := s.store(id)
	s.checkMembers(&store, "CloudHsmClusterId ConnectionState CreationDate CustomKeyStoreId CustomKeyStoreName CustomKeyStoreType TrustAnchorCertificate")
	s.connect(id)

	key := &kms.CreateKeyInput{Origin: types.OriginTypeAwsCloudhsm, CustomKeyStoreId: id}
	m := s.create(key)
	s.record.made(m)
	s.checkMembers(m, common+" CustomerMasterKeySpec EncryptionAlgorithms CustomKeyStoreId CloudHsmClusterId")
	if *m.CustomKeyStoreId != *id || *m.CloudHsmClusterId != c.ID {
		s.Errorf("key %+v", *m)
	}
	s.notInStores(key)
	data := ok(s, s.GenerateDataKey, &kms.GenerateDataKeyInput{KeyId: m.KeyId, KeySpec: types.DataKeySpecAes256})
	s.checkMembers(data, "CiphertextBlob KeyId Plaintext")
	if out := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: data.CiphertextBlob}); string(out.Plaintext) != string(data.Plaintext) {
		s.Error("the data key decrypts to another one")
	}
	if out := ok(s, s.GenerateRandom, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(16), CustomKeyStoreId: id}); len(out.Plaintext) != 16 {
		s.Errorf("%d random bytes", len(out.Plaintext))
	}
	s.endStore(id, m.KeyId)

	all := map[string]bool{}
	for _, entry := range ok(s, s.DescribeCustomKeyStores, &kms.DescribeCustomKeyStoresInput{}).CustomKeyStores {
		all[*entry.CustomKeyStoreId] = true
	}
	marker := s.pages("key stores", all, func(marker *string) (items []string, next *string, truncated bool) {
		out := ok(s, s.DescribeCustomKeyStores, &kms.DescribeCustomKeyStoresInput{Limit: aws.Int32(1), Marker: marker})
		for _, entry := range out.CustomKeyStores {
			items = append(items, *entry.CustomKeyStoreId)
		}
		return items, out.NextMarker, out.Truncated
	})
	if len(all) < 2 {
		s.Errorf("%d key stores", len(all))
	}
	refused(s, s.ListKeys, &kms.ListKeysInput{Marker: marker}, "InvalidMarkerException")
	s.emptyStore()
}

// emptyStore makes a key store and deletes it again.
func (s *suite) emptyStore() {
	s.Helper()
	// Another account may have one at the same proxy.
	other := s.in(OtherAccount, Region)
	p := s.target.Proxy
	id := ok(other, other.CreateCustomKeyStore, &kms.CreateCustomKeyStoreInput{
		CustomKeyStoreName: aws.String("empty"), CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore,
		XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint, XksProxyUriEndpoint: &p.Endpoint, XksProxyUriPath: &p.Path,
		XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{AccessKeyId: &p.AccessKeyID, RawSecretAccessKey: &p.SecretAccessKey},
	}).CustomKeyStoreId
	refused(s, s.DescribeCustomKeyStores, &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: id}, "CustomKeyStoreNotFoundException")
	ok(other, other.DeleteCustomKeyStore, &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: id})
	refused(other, other.DescribeCustomKeyStores, &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: id}, "CustomKeyStoreNotFoundException")
}
