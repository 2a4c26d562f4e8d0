module github.com/hyok-kms/hyok

go 1.26.0

require (
	github.com/go-json-experiment/json v1.27.2
	github.com/spf13/pflag v1.1.0
)
