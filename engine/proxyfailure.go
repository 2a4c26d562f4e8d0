package engine

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/xks"
)

// failure is a row of the failure scenarios of the XKS proxy API ("Error codes",
// "KMS Considerations"): what KMS answers when a proxy fails so. Where the
// specification leaves an operation out, because no proxy should answer this
// there, the exception is the one that comes nearest. Cryptographic operations
// always answer KMSInvalidStateException.
type failure struct {
	message  string
	managing makeError                     // of CreateCustomKeyStore and UpdateCustomKeyStore
	creating makeError                     // of CreateKey
	code     types.ConnectionErrorCodeType // of ConnectCustomKeyStore
}

// makeError makes an exception with a message.
type makeError func(message *string) error

// namedFailure is the row of an error that the proxy named.
func namedFailure(name xks.ErrorName) failure {
	switch name {
	case xks.InvalidStateException:
		return failure{
			"The external key associated with this KMS key in an external key store is not enabled in the external key manager. " +
				"Enable the external key in the external key manager and retry the request.",
			unhealthyProxy, xksKeyInvalid, types.ConnectionErrorCodeTypeXksProxyNotReachable,
		}
	case xks.InvalidCiphertextException:
		return failure{
			"The external key store proxy rejected the request because the specified ciphertext or encryption context is corrupted, missing, or otherwise invalid.",
			invalidResponse, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyInvalidResponse,
		}
	case xks.InvalidKeyUsageException:
		return failure{
			"The external key associated with this KMS key in an external key store does not support the requested operation. " +
				"Enable the operation on the key in your external key manager, and try the request again.",
			invalidResponse, xksKeyInvalid, types.ConnectionErrorCodeTypeXksProxyInvalidResponse,
		}
	case xks.AuthenticationFailedException:
		return failure{
			"The external key store proxy rejected the request because it could not authenticate AWS KMS. " +
				"Verify the XKS proxy authentication credentials for your external key store and update if necessary.",
			incorrectCredential, storeInvalidState, types.ConnectionErrorCodeTypeInvalidCredentials,
		}
	case xks.AccessDeniedException:
		return failure{
			"The external key store proxy denied access to the operation. " +
				"Verify that the user and the external key are both authorized for this operation, and try the request again.",
			invalidConfiguration, keyInvalidState, types.ConnectionErrorCodeTypeXksProxyAccessDenied,
		}
	case xks.KeyNotFoundException:
		return failure{
			"The external key associated with this KMS key in an external key store was not found in its external key manager. " +
				"If the external key ID associated with this KMS key is incorrect, create a new KMS key with the correct external key ID.",
			invalidResponse, xksKeyNotFound, types.ConnectionErrorCodeTypeXksProxyInvalidResponse,
		}
	}
	return proxyTrouble(name)
}

// proxyTrouble is the row of an error that has nothing to do with a key.
func proxyTrouble(name xks.ErrorName) failure {
	switch name {
	case xks.InvalidURIPathException:
		return failure{
			"The external key store proxy rejected the request because of an invalid URI path. " +
				"Verify the URI path for your external key store and update if necessary.",
			invalidConfiguration, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyInvalidConfiguration,
		}
	case xks.UnsupportedOperationException:
		// The table has an XksKeyInvalidResponseException for CreateKey, which KMS
		// has not.
		return failure{
			"The external key store proxy rejected the request because it does not support the requested operation. " +
				"If you see this error repeatedly, report it to your external key store proxy administrator.",
			invalidResponse, xksKeyInvalid, types.ConnectionErrorCodeTypeXksProxyInvalidResponse,
		}
	case xks.DependencyTimeoutException:
		return failure{
			"The external key store proxy did not respond to the request in the time allotted. " +
				"Retry the request. If you see this error repeatedly, report it to your external key store proxy administrator.",
			uriUnreachable, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyTimedOut,
		}
	case xks.ThrottlingException:
		return failure{
			"The external key store proxy rejected the request due to a very high request rate. " +
				"Reduce the frequency of your calls using KMS keys in this external key store.",
			uriUnreachable, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyNotReachable,
		}
	case xks.InternalException:
		return failure{
			"The external key store proxy rejected the request because it cannot communicate with the external key manager. " +
				"Verify that the external key store proxy configuration is correct and that the external key manager is available.",
			invalidResponse, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyInvalidResponse,
		}
	}
	return malformed() // ValidationException
}

func malformed() failure {
	return failure{
		"AWS KMS cannot interpret the response from the external key store proxy. " +
			"If you see this error repeatedly, report it to your external key store proxy administrator.",
		invalidResponse, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyInvalidResponse,
	}
}

func noConnection() failure {
	return failure{
		"AWS KMS cannot communicate with the external key store proxy. This might be a transient network issue. " +
			"If you see this error repeatedly, verify that your external key store proxy is active and is connected to the network, " +
			"and that its endpoint URI is correct in your external keystore.",
		uriUnreachable, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyNotReachable,
	}
}

func noTLS() failure {
	return failure{
		"AWS KMS cannot establish a TLS connection to the external key store proxy. Verify the TLS configuration, including its certificate.",
		uriUnreachable, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyInvalidTlsConfiguration,
	}
}

func timedOut() failure {
	return failure{
		"AWS KMS rejected the request because the external key store proxy did not respond in time. " +
			"Retry the request. If you see this error repeatedly, report it to your external key store proxy administrator.",
		uriUnreachable, storeInvalidState, types.ConnectionErrorCodeTypeXksProxyTimedOut,
	}
}

// unhealthy is of a proxy that reports no external key manager that could serve.
func unhealthy() failure {
	return failure{managing: unhealthyProxy, creating: storeInvalidState, code: types.ConnectionErrorCodeTypeXksProxyNotReachable}
}

func unhealthyProxy(*string) error {
	return uriUnreachable(aws.String("The external key store proxy is in an unhealthy state. " +
		"If you see this message repeatedly, notify your external key store proxy administrator."))
}

func uriUnreachable(m *string) error { return &types.XksProxyUriUnreachableException{Message: m} }

func invalidResponse(m *string) error { return &types.XksProxyInvalidResponseException{Message: m} }

func invalidConfiguration(m *string) error {
	return &types.XksProxyInvalidConfigurationException{Message: m}
}

func incorrectCredential(m *string) error {
	return &types.XksProxyIncorrectAuthenticationCredentialException{Message: m}
}

func storeInvalidState(m *string) error {
	return &types.CustomKeyStoreInvalidStateException{Message: m}
}

func keyInvalidState(m *string) error { return &types.KMSInvalidStateException{Message: m} }

func xksKeyNotFound(m *string) error { return &types.XksKeyNotFoundException{Message: m} }

func xksKeyInvalid(m *string) error { return &types.XksKeyInvalidConfigurationException{Message: m} }
