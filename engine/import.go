package engine

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

// importToken is what an import token stands for: the wrapping key that
// GetParametersForImport made for one key.
type importToken struct {
	ID        string              `json:"id"`
	Account   string              `json:"a"`
	Region    string              `json:"r"`
	KeyID     string              `json:"k"`
	Algorithm types.AlgorithmSpec `json:"al"`
	Wrapping  keystore.Material   `json:"w"`
	Expires   time.Time           `json:"e"`
}
