package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/keystore"
)

func (c *Client) createCustomKeyStore(context.Context, *kms.CreateCustomKeyStoreInput) (*kms.CreateCustomKeyStoreOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) deleteCustomKeyStore(context.Context, *kms.DeleteCustomKeyStoreInput) (*kms.DeleteCustomKeyStoreOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) describeCustomKeyStores(context.Context, *kms.DescribeCustomKeyStoresInput) (*kms.DescribeCustomKeyStoresOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) updateCustomKeyStore(context.Context, *kms.UpdateCustomKeyStoreInput) (*kms.UpdateCustomKeyStoreOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) connectCustomKeyStore(context.Context, *kms.ConnectCustomKeyStoreInput) (*kms.ConnectCustomKeyStoreOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) disconnectCustomKeyStore(context.Context, *kms.DisconnectCustomKeyStoreInput) (*kms.DisconnectCustomKeyStoreOutput, error) {
	return nil, unsupported("not built yet")
}

// generator returns the token whose generator GenerateRandom uses.
func (c *Client) generator(customStore *string) (*keystore.Token, error) {
	if customStore == nil {
		return c.engine.token, nil
	}
	return nil, unsupported("not built yet")
}

// sealOuter has the proxy of a key's store encrypt the inner layer.
func (c *Client) sealOuter(context.Context, string, *key, []byte, []byte) (outerLayer, error) {
	return outerLayer{}, unsupported("not built yet")
}

// openOuter has the proxy of a key's store decrypt the outer layer.
func (c *Client) openOuter(context.Context, string, *key, []byte, []byte) ([]byte, error) {
	return nil, unsupported("not built yet")
}

// materialError is the answer when the token failed to use a key's material.
func (c *Client) materialError(_ *key, err error) error { return err }
