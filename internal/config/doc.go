// Package config reads, checks, watches and edits hyok's one configuration
// file, hyok.yaml, and the files of credentials and identities that it names.
//
// The file is strict: an unknown name, a name given twice, a value of the wrong
// type or outside its range is an [*Error] with its line. All of them are
// reported at once, and none repeats a value that may be a secret. Relative
// paths start at the folder of the configuration file. The whole format:
//
//	version: 1
//	softhsm2_conf: softhsm2.conf          # optional: SOFTHSM2_CONF of the process
//	tokens:                               # PKCS#11 tokens by name
//	  main:
//	    uri: pkcs11:token=hyok?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:pin
//	    profile: softhsm2                 # how it does AES-GCM; default softhsm2
//	    sessions: 16                      # 1 to 1024; default the profile's
//	    allow_pin_value: false            # permits pin-value in the URI
//	    isolation: none                   # none or process: the module in a process of its own
//	    module_parameters: ""             # what the module wants in C_Initialize; default none
//	stores:                               # key stores by name
//	  default:
//	    prefix: /keystores/default        # before /kms/xks/v1; default none
//	    tokens: [main]                    # 1 to 10
//	    keys: [a, b]                      # external key ids; or
//	    key_pattern: "prod-*"             # a pattern of them, as in path.Match
//	    credentials: credentials/default.json
//	    regions: [eu-central-1]           # optional: other Regions are refused
//	    rate_limit: {per_second: 1800, burst: 1800}  # optional; burst as per_second
//	    sample_metadata: djAuMC4x         # optional, Base64: what an AWS sample proxy was given
//	listeners:                            # of the XKS proxy, at least one; optional beside kms
//	  - address: 127.0.0.1:8443
//	    tls:
//	      certificate: tls/server.crt
//	      key: tls/server.key             # or "pkcs11:token=...;object=tls?module-path=..."
//	      client_ca: tls/clients.crt      # optional, with client_subjects: mutual TLS
//	      client_subjects: [cks.kms.eu-central-1.amazonaws.com]
//	  - address: 127.0.0.1:8080
//	    plain_http: true                  # on a loopback address alone, unless
//	    behind_tls_terminator: true       # it is said that another program does TLS
//	kms:                                  # the embedded KMS; optional beside listeners
//	  token: main                         # holds its root key and what cannot be wrapped
//	  data: kms                           # folder of its database; default kms
//	  vault: default                      # names its root key in the token; default default
//	  identities: credentials/kms.json    # who may call it
//	  listeners:                          # at least one, as above
//	    - address: 127.0.0.1:8444
//	      plain_http: true
//	  cloudhsm_clusters:                  # optional: tokens for CreateCustomKeyStore by cluster id
//	    cluster-abcdefghijk:
//	      token: main
//	      trust_anchor: tls/hsm.crt       # optional: the certificate that must be named for it
//	  xks_proxies:                        # optional
//	    ca: tls/proxies.crt               # optional: trusted beside the system's
//	    allow: [public, 10.1.0.0/16]      # optional: names and networks where they may be
//	  cache: 4096                         # 16 to 65536 unwrapped keys kept in the token
//	  deadline: 5s                        # 100ms to 8s
//	  max_in_flight: 512                  # 1 to 65536 requests
//	  aws_managed_keys: off               # off, or on-demand: made when their aliases are described
//	operations: {address: 127.0.0.1:9443} # optional: health and metrics, plain HTTP
//	limits:                               # of the XKS proxy; drain of both
//	  deadline: 200ms                     # 10ms to 10s; AWS KMS gives up after 250 ms
//	  max_in_flight: 512                  # 1 to 65536 requests
//	  drain: 10s                          # 0s to 10m, at the end of the process
//	health: {interval: 10s}               # 1s to 60s
//	log: {level: info, ciphertext: false} # debug, info, warn or error
//
// A credentials file and an identities file are JSON of mode 0600:
//
//	{"credentials": [{"accessKeyId": "…", "secretAccessKey": "…", "created": "2026-01-02T15:04:05Z"}]}
//	{"identities": [{"accessKeyId": "…", "secretAccessKey": "…", "account": "111122223333", "created": "…"}]}
//
// An identity may also have an arn (default the root of the account), a userId and
// a sessionToken.
package config
