package constraint

// members returns the constraints of every member of every input and of the
// structures in them, by its name. A name means the same in all operations, or has
// an enum type of its own in each. Members without a constraint stand here too, so
// that a test finds those that a newer SDK adds.
//
// The figures are those of AWS's service model of 2014-11-01. Three things differ
// from it. AWS itself demands ASCII key ids and lists many enums in an order of its
// own: the older ones in that of a hash table of 32 buckets, so that those of which
// only an earlier answer is known are extended by its rule. An XksProxyUriEndpoint
// may have a port here.
func members() map[string]rule {
	var (
		none       = rule{}
		enum       = rule{enum: true}
		keyID      = rule{min: 1, max: 2048, pattern: ascii()}
		storeID    = rule{min: 1, max: 64}
		storeName  = rule{min: 1, max: 256}
		principal  = rule{min: 1, max: 256, pattern: runOf(`a-zA-Z0-9_+=,.@:/-`, `^[\w+=,.@:/-]+$`)}
		service    = rule{min: 1, max: 128, pattern: regular(`^([A-Za-z0-9\-]+)\.([A-Za-z0-9\-]+)(\.[A-Za-z0-9\-]+)+$`)}
		region     = rule{min: 1, max: 32, pattern: regular(`^([a-z]+-){2,3}\d+$`)}
		name       = rule{min: 1, max: 256, pattern: runOf(`a-zA-Z0-9:/_-`, `^[a-zA-Z0-9:/_-]+$`)}
		plaintext  = rule{min: 1, max: 4096, secret: true}
		ciphertext = rule{min: 1, max: 6144}
		grantToken = rule{min: 1, max: 8192}
		tagKey     = rule{min: 1, max: 128}
		ordered    = func(values ...string) rule { return rule{enum: true, order: values} }
		encryption = ordered("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE", "SYMMETRIC_DEFAULT")
	)
	m := map[string]rule{
		"AliasName":                      name,
		"BypassPolicyLockoutSafetyCheck": none,
		"CiphertextBlob":                 ciphertext,
		"Constraints":                    none,
		"CustomKeyStoreId":               storeID,
		"CustomKeyStoreName":             storeName,
		"CustomKeyStoreType":             enum,
		"CustomerMasterKeySpec":          enum,
		"Description":                    {max: 8192},
		"DestinationEncryptionAlgorithm": encryption,
		"DestinationEncryptionContext":   none,
		"DestinationKeyId":               keyID,
		"DryRun":                         none,
		"DryRunModifiers":                {each: &rule{enum: true}},
		"EncapsulationAlgorithm":         enum,
		"EncryptedKeyMaterial":           ciphertext,
		"EncryptionAlgorithm":            encryption,
		"EncryptionContext":              none,
		"ExpirationModel":                ordered("KEY_MATERIAL_DOES_NOT_EXPIRE", "KEY_MATERIAL_EXPIRES"),
		"GrantId":                        {min: 1, max: 128},
		"GrantToken":                     grantToken,
		"GrantTokens":                    {max: 10, each: &grantToken},
		"GranteePrincipal":               principal,
		"GranteeServicePrincipal":        service,
		"ImportToken":                    ciphertext,
		"ImportType":                     enum,
		"IncludeKeyMaterial":             enum,
		"KeyAgreementAlgorithm":          enum,
		"KeyId":                          keyID,
		"KeyMaterialDescription":         {max: 256, pattern: runOf("a-zA-Z0-9:/_ \t\n\v\f\r.-", `^[a-zA-Z0-9:/_\s.-]+$`)},
		"KeyMaterialId":                  {min: 64, max: 64, pattern: runOf(`a-f0-9`, `^[a-f0-9]+$`)},
		"KeyPairSpec":                    enum,
		"KeySpec":                        {enum: true, order: keySpecs()},
		"KeyUsage":                       ordered("ENCRYPT_DECRYPT", "SIGN_VERIFY", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT", "ENCAPSULATE_DECAPSULATE"),
		"Limit":                          {min: 1, max: 1000},
		"Mac":                            ciphertext,
		"MacAlgorithm":                   ordered("HMAC_SHA_384", "HMAC_SHA_256", "HMAC_SHA_224", "HMAC_SHA_512"),
		"Marker":                         {min: 1, max: 1024, pattern: latin1("", `[\u0020-\u00FF]*`, true)},
		"Message":                        plaintext,
		"MessageType":                    enum,
		"MultiRegion":                    none,
		"Name":                           name,
		"NewCustomKeyStoreName":          storeName,
		"NumberOfBytes":                  {min: 1, max: 1024},
		"Operations":                     {each: &rule{enum: true}},
		"Origin":                         ordered("EXTERNAL", "EXTERNAL_KEY_STORE", "AWS_CLOUDHSM", "AWS_KMS"),
		"PendingWindowInDays":            {min: 1, max: 365},
		"Plaintext":                      plaintext,
		"Policy":                         {min: 1, max: 131072, pattern: latin1("\t\n\r", `[\u0009\u000A\u000D\u0020-\u00FF]+`, false)},
		"PolicyName":                     {min: 1, max: 128, pattern: runOf(`a-zA-Z0-9_`, `[\w]+`)},
		"PrimaryRegion":                  region,
		"PublicKey":                      {min: 1, max: 8192},
		"Recipient":                      none,
		"ReplicaRegion":                  region,
		"RetiringPrincipal":              principal,
		"RetiringServicePrincipal":       service,
		"RotationPeriodInDays":           {min: 90, max: 2560},
		"SharedSecretCiphertextBlob":     ciphertext,
		"Signature":                      ciphertext,
		"SigningAlgorithm":               {enum: true, order: signingAlgorithms()},
		"SourceEncryptionAlgorithm":      encryption,
		"SourceEncryptionContext":        none,
		"SourceKeyId":                    keyID,
		"TagKeys":                        {each: &tagKey},
		"Tags":                           none,
		"TargetKeyId":                    keyID,

		"ValidTo": none,
		"WrappingAlgorithm": ordered("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE",
			"RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256", "RSAES_PKCS1_V1_5"),
		"WrappingKeySpec": enum,

		// In Tags, Constraints and Recipient.
		"TagKey":                  tagKey,
		"TagValue":                {max: 256},
		"EncryptionContextEquals": none,
		"EncryptionContextSubset": none,
		"SourceArn":               {min: 20, max: 512, pattern: regular(`^arn:aws[a-z0-9-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:.+$`)},
		"AttestationDocument":     {min: 1, max: 262144},
		"KeyEncryptionAlgorithm":  enum,
	}
	for member, r := range storeMembers() {
		m[member] = r
	}
	return m
}

// storeMembers are the members by which a custom key store is reached.
func storeMembers() map[string]rule {
	return map[string]rule{
		"CloudHsmClusterId":                {min: 19, max: 24, pattern: regular(`cluster-[2-7a-zA-Z]{11,16}`)},
		"KeyStorePassword":                 {min: 7, max: 32, secret: true},
		"TrustAnchorCertificate":           {min: 1, max: 5000},
		"XksKeyId":                         {min: 1, max: 128, pattern: runOf(`a-zA-Z0-9_.-`, `^[a-zA-Z0-9-_.]+$`)},
		"XksProxyAuthenticationCredential": {},
		"XksProxyConnectivity":             {enum: true},
		"XksProxyUriEndpoint":              {min: 10, max: 128, pattern: regular(`^https://[a-zA-Z0-9.-]+(:[0-9]{1,5})?$`)},
		"XksProxyUriPath":                  {min: 10, max: 128, pattern: regular(`^(/[a-zA-Z0-9\/_-]+/kms/xks/v\d{1,2})$|^(/kms/xks/v\d{1,2})$`)},
		"XksProxyVpcEndpointServiceName":   {min: 20, max: 64, pattern: regular(`^(com|eu)\.amazonaws\.vpce\.([a-z]+-){2,3}\d+\.vpce-svc-[0-9a-z]+$`)},
		"XksProxyVpcEndpointServiceOwner":  {min: 12, max: 12, pattern: runOf(`0-9`, `[0-9]{12}`)},

		// In XksProxyAuthenticationCredential.
		"AccessKeyId":        {min: 20, max: 30, secret: true, pattern: runOf(`A-Z2-7`, `^[A-Z2-7]+$`)},
		"RawSecretAccessKey": {min: 43, max: 64, secret: true, pattern: runOf(`a-zA-Z0-9/+=`, `^[a-zA-Z0-9\/+=]+$`)},
	}
}

func keySpecs() []string {
	return []string{
		"RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1",
		"ECC_NIST_EDWARDS25519", "SYMMETRIC_DEFAULT", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512", "SM2",
		"ML_DSA_44", "ML_DSA_65", "ML_DSA_87", "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024",
	}
}

func signingAlgorithms() []string {
	return []string{
		"RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
		"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
		"ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512",
		"ED25519_SHA_512", "ED25519_PH_SHA_512", "SM2DSA", "ML_DSA_SHAKE_256",
	}
}
