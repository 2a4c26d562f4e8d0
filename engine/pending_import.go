package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

func (c *Client) getParametersForImport(context.Context, *kms.GetParametersForImportInput) (*kms.GetParametersForImportOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) importKeyMaterial(context.Context, *kms.ImportKeyMaterialInput) (*kms.ImportKeyMaterialOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) deleteImportedKeyMaterial(context.Context, *kms.DeleteImportedKeyMaterialInput) (*kms.DeleteImportedKeyMaterialOutput, error) {
	return nil, unsupported("not built yet")
}
