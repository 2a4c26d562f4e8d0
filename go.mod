module github.com/hyok-kms/hyok

go 1.26.0
