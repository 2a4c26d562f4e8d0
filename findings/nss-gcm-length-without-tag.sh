#!/bin/sh
# NSS's softokn answers the length query of C_Encrypt with CKM_AES_GCM (a NULL output) with
# the length of the plaintext, without the tag. Who allocates that much, as PKCS#11 v2.40
# section 5.2 has it, is then told CKR_BUFFER_TOO_SMALL and the same length again: no
# answer tells how much room is needed.
#
# Seen with libnss3 2:3.87.1-1+deb12u4 (Debian 12, amd64), 32 bytes, a tag of 128 bits:
#
#   length query: 0x0, 32 bytes
#   with 32 bytes of room: 0x150, 32 bytes
#   with 48 bytes of room: 0x0, 48 bytes
#
# 0x150 is CKR_BUFFER_TOO_SMALL. The script fails if that changes.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
for package in libnss3=2:3.87.1-1+deb12u4 libnspr4 libp11-kit-dev=0.24.1-2; do
	apt-get download -q "$package" >/dev/null 2>&1
done
for deb in *.deb; do dpkg -x "$deb" root; done

cat >gcm.c <<'C'
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>

/* NSS's arguments of C_Initialize, with the text that says which database to use. */
struct arguments { void *create, *destroy, *lock, *unlock; CK_FLAGS flags; const char *text; void *reserved; };
struct gcm { CK_BYTE *iv; CK_ULONG iv_len; CK_ULONG iv_bits; CK_BYTE *aad; CK_ULONG aad_len; CK_ULONG tag_bits; };

int main(int argc, char **argv)
{
	(void)argc;
	void *library = dlopen(argv[1], RTLD_NOW);
	CK_C_GetFunctionList get = library ? (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList") : NULL;
	CK_FUNCTION_LIST *f;
	if (!get || get(&f) != CKR_OK)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	struct arguments args = { .flags = CKF_OS_LOCKING_OK, .text = "configdir='' certPrefix='' keyPrefix='' secmod='' flags=readOnly,noCertDB,noModDB,forceOpen" };
	CK_SLOT_ID slots[8];
	CK_ULONG n = 8, length;
	CK_SESSION_HANDLE session;
	CK_OBJECT_HANDLE key;
	CK_MECHANISM make = { CKM_AES_KEY_GEN, NULL, 0 };
	CK_ULONG size = 32;
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE template[] = { { CKA_VALUE_LEN, &size, sizeof size }, { CKA_ENCRYPT, &yes, sizeof yes } };
	if (f->C_Initialize(&args) || f->C_GetSlotList(CK_TRUE, slots, &n) || f->C_OpenSession(slots[0], CKF_SERIAL_SESSION, NULL, NULL, &session) ||
	    f->C_GenerateKey(session, &make, template, 2, &key))
		return fprintf(stderr, "no key\n"), 2;
	CK_BYTE iv[12] = { 1 }, text[32] = { 2 }, out[64];
	struct gcm parameters = { iv, sizeof iv, 96, NULL, 0, 128 };
	CK_MECHANISM gcm = { 0x1087, &parameters, sizeof parameters };
	struct { const char *name; CK_BYTE *out; CK_ULONG room; } tries[] = {
		{ "length query", NULL, 0 }, { "with 32 bytes of room", out, 32 }, { "with 48 bytes of room", out, 48 },
	};
	for (int i = 0; i < 3; i++) {
		f->C_OpenSession(slots[0], CKF_SERIAL_SESSION, NULL, NULL, &session);
		length = tries[i].room;
		CK_RV rv = f->C_EncryptInit(session, &gcm, key);
		if (rv == CKR_OK)
			rv = f->C_Encrypt(session, text, sizeof text, tries[i].out, &length);
		printf("%s: 0x%lx, %lu bytes\n", tries[i].name, rv, length);
	}
	return 0;
}
C
cc -o gcm gcm.c -Iroot/usr/include/p11-kit-1 -ldl
softokn=$(find root -name libsoftokn3.so)
LD_LIBRARY_PATH=$(dirname "$softokn") ./gcm "$PWD/$softokn" | tee seen
cat >want <<'W'
length query: 0x0, 32 bytes
with 32 bytes of room: 0x150, 32 bytes
with 48 bytes of room: 0x0, 48 bytes
W
cmp -s seen want || { echo "it behaves otherwise now" >&2; exit 1; }
