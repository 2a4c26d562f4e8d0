#!/bin/sh
# cosign 3.1.3 does not verify its own signature of a blob by a P-384 key.
#
# sign-blob chooses the hash by the curve (SHA-384 for P-384) and says so in the
# bundle's messageDigest. verify-blob with the public key alone takes SHA-256,
# whatever the bundle says, and refuses the signature as invalid. OpenSSL verifies
# it with SHA-384. P-256 keys are not affected. So a key of a KMS that is to sign
# blobs for holders of its public key should be P-256.
#
# Needs Go, openssl, python3. Builds cosign in a temporary folder (some minutes).
set -eu
version=v3.1.3
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
GOBIN=$dir/bin GOFLAGS=-mod=mod go install "github.com/sigstore/cosign/v3/cmd/cosign@$version"
export COSIGN_PASSWORD=example HOME="$dir"
echo blob > blob

try() { # try CURVE: whether verify-blob takes what sign-blob made
	openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:$1" -out "$1.pem"
	bin/cosign import-key-pair --key "$1.pem" --output-key-prefix "$1" >/dev/null 2>&1
	bin/cosign sign-blob --yes --key "$1.key" --tlog-upload=false --use-signing-config=false \
		--bundle "$1.json" blob >/dev/null 2>&1
	if bin/cosign verify-blob --key "$1.pub" --insecure-ignore-tlog --bundle "$1.json" blob >"$1.log" 2>&1; then
		echo verified
	else
		echo refused
	fi
}

p256=$(try P-256)
p384=$(try P-384)
python3 - P-384.json > signature <<'PY'
import base64, json, sys
message = json.load(open(sys.argv[1]))["messageSignature"]
print(message["messageDigest"]["algorithm"], file=sys.stderr)
sys.stdout.buffer.write(base64.b64decode(message["signature"]))
PY
openssl=$(openssl dgst -sha384 -verify P-384.pub -signature signature blob || true)

echo "cosign $version: P-256 $p256, P-384 $p384; OpenSSL with SHA-384: $openssl"
tail -n 1 P-384.log
# Seen: cosign v3.1.3: P-256 verified, P-384 refused; OpenSSL with SHA-384: Verified OK
[ "$p256 $p384 $openssl" = "verified refused Verified OK" ]
