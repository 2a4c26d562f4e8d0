package xks

// APIPath is what follows a key store's URI path prefix: the XksProxyUriPath
// of a key store is its prefix followed by APIPath.
const APIPath = "/kms/xks/v1"

// Service is the SigV4 service name of requests to an XKS proxy (appendix A).
const Service = "kms-xks-proxy"

// The only values that version 1 of the API defines for these members.
const (
	AlgorithmAESGCM = "AES_GCM" // encryptionAlgorithm
	CDIVSHA256      = "SHA_256" // ciphertextDataIntegrityValueAlgorithm
	KeySpecAES256   = "AES_256" // keySpec
)

// Values of keyStatus and keyUsage in a [MetadataResponse].
const (
	KeyEnabled   = "ENABLED"
	KeyDisabled  = "DISABLED"
	UsageEncrypt = "ENCRYPT"
	UsageDecrypt = "DECRYPT"
)

// Health states of an external key manager in a [HealthResponse].
const (
	HealthActive      = "ACTIVE"
	HealthDegraded    = "DEGRADED"
	HealthUnavailable = "UNAVAILABLE"
)

// Sizes that the specification fixes or demands at the least, in bytes before
// Base64 encoding.
const (
	MinPlaintextLimit = 4300 // every proxy accepts plaintext and ciphertext of this size
	MinAADLimit       = 8192 // and additional authenticated data of this size
	TagSize           = 16   // authenticationTag
	IVSize            = 12   // initializationVector that we make; 16 is accepted too
	MaxMetadataSize   = 20   // ciphertextMetadata
)

// RequestMetadata describes the AWS KMS call behind a request. The proxy logs
// it and must not validate its values.
type RequestMetadata struct {
	AWSPrincipalARN string `json:"awsPrincipalArn,omitzero"` // required except for health
	AWSSourceVPC    string `json:"awsSourceVpc,omitzero"`
	AWSSourceVPCE   string `json:"awsSourceVpce,omitzero"`
	KMSKeyARN       string `json:"kmsKeyArn,omitzero"`    // required for encrypt and decrypt
	KMSOperation    string `json:"kmsOperation,omitzero"` // required; any value
	KMSRequestID    string `json:"kmsRequestId,omitzero"` // required; any value
	KMSViaService   string `json:"kmsViaService,omitzero"`
}

// MetadataRequest is the body of GetKeyMetadata.
type MetadataRequest struct {
	RequestMetadata RequestMetadata `json:"requestMetadata,omitzero"`
}

// MetadataResponse is the answer of GetKeyMetadata.
type MetadataResponse struct {
	KeySpec   string   `json:"keySpec"`
	KeyUsage  []string `json:"keyUsage"`
	KeyStatus string   `json:"keyStatus"`
}

// EncryptRequest is the body of Encrypt as a client sends it.
type EncryptRequest struct {
	RequestMetadata RequestMetadata `json:"requestMetadata,omitzero"`
	AAD             []byte          `json:"additionalAuthenticatedData,omitzero"` // nil is absent, empty is sent
	Plaintext       []byte          `json:"plaintext"`
	Algorithm       string          `json:"encryptionAlgorithm"`
	CDIVAlgorithm   string          `json:"ciphertextDataIntegrityValueAlgorithm,omitzero"`
}

// EncryptResponse is the answer of Encrypt.
type EncryptResponse struct {
	Tag        []byte `json:"authenticationTag"`
	Ciphertext []byte `json:"ciphertext"`
	CDIV       []byte `json:"ciphertextDataIntegrityValue,omitempty"`
	Metadata   []byte `json:"ciphertextMetadata,omitempty"`
	IV         []byte `json:"initializationVector"`
}

// DecryptRequest is the body of Decrypt as a client sends it.
type DecryptRequest struct {
	RequestMetadata RequestMetadata `json:"requestMetadata,omitzero"`
	AAD             []byte          `json:"additionalAuthenticatedData,omitzero"` // nil is absent, empty is sent
	Tag             []byte          `json:"authenticationTag"`
	Ciphertext      []byte          `json:"ciphertext"`
	Metadata        []byte          `json:"ciphertextMetadata,omitzero"` // as AAD
	Algorithm       string          `json:"encryptionAlgorithm"`
	IV              []byte          `json:"initializationVector"`
}

// DecryptResponse is the answer of Decrypt.
type DecryptResponse struct {
	Plaintext []byte `json:"plaintext"`
}

// HealthRequest is the body of GetHealthStatus.
type HealthRequest struct {
	RequestMetadata RequestMetadata `json:"requestMetadata,omitzero"`
}

// HealthResponse is the answer of GetHealthStatus.
type HealthResponse struct {
	ProxyFleetSize int                  `json:"xksProxyFleetSize"` // at least 1
	ProxyVendor    string               `json:"xksProxyVendor"`
	ProxyModel     string               `json:"xksProxyModel"`
	EKMVendor      string               `json:"ekmVendor"`
	EKMFleet       []ExternalKeyManager `json:"ekmFleetDetails"` // 1 to 10
}

// ExternalKeyManager is one entry of ekmFleetDetails: for hyok, one token.
type ExternalKeyManager struct {
	ID     string `json:"id"`
	Model  string `json:"model"`
	Health string `json:"healthStatus"` // HealthActive, HealthDegraded or HealthUnavailable
}

// ErrorResponse is the body of every error answer but 405.
type ErrorResponse struct {
	Name    ErrorName `json:"errorName"`
	Message string    `json:"errorMessage,omitzero"` // printable ASCII, under 512 characters
}
