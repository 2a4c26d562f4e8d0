# hyok: two commands do all set-up on a fresh Debian machine with Go, git and make.
#   make run    installs what is missing, builds, provisions a SoftHSM2 token, serves
#   make test   installs what is missing, runs every test
.POSIX:
.DELETE_ON_ERROR:

DATA       = data
LISTEN     =
KMS_LISTEN =
OPERATIONS =
FUZZTIME   = 20m

GO      = go
VERSION = $$(git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: all build run test race fuzz bench drill faulty lint tools clean

all: build

# What hyok needs of the system: a C compiler for cgo, SoftHSM2; and for the
# tests OpenSC's pkcs11-tool, which acts as another program on the token, OpenSSL,
# which checks what the token computes, curl and the aws CLI, which are the
# examples of the README, and NSS behind p11-kit-proxy, a token of another make.
tools:
	@deploy/install-tools

build: tools
	@mkdir -p bin
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/hyok ./cmd/hyok

run: build
	@bin/hyok init --data "$(DATA)" $${LISTEN:+--listen "$$LISTEN"} $${KMS_LISTEN:+--kms-listen "$$KMS_LISTEN"} $${OPERATIONS:+--operations "$$OPERATIONS"}
	@exec bin/hyok serve --data "$(DATA)" --log-file "$(DATA)/hyok.log"

# Tests never skip: what they need is installed above.
test: tools
	$(GO) vet ./...
	$(GO) test -count=1 -p 2 ./...

race: tools
	$(GO) test -race -count=1 -p 1 ./...

# All fuzz targets, one after the other, within FUZZTIME.
fuzz: tools
	@deploy/fuzz $(FUZZTIME)

# The ratios of docs/performance.md, from one run on this machine.
bench: build
	$(GO) run ./internal/benchmark

# The fault-injecting PKCS#11 module: see testdata/faultymodule/README.md.
faulty:
	@mkdir -p bin
	cc -shared -fPIC -O1 -Wall -Wextra -Werror -pthread -o bin/faulty.so testdata/faultymodule/*.c -ldl

# The figures of docs/reliability.md: what a token's bad days cost. Twenty minutes.
drill: tools
	HYOK_DRILL=full $(GO) test -count=1 -v -timeout 40m ./internal/drill

lint:
	golangci-lint run ./...

clean:
	rm -rf bin
