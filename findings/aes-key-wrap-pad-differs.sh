#!/bin/sh
# CKM_AES_KEY_WRAP_PAD (0x210A) is not the same in all PKCS#11 modules: SoftHSM2's is RFC
# 5649, as 0x210B (CKM_AES_KEY_WRAP_KWP) is; NSS's pads as PKCS #7 does and wraps that by
# RFC 3394, which is 8 bytes longer for a key of 32 bytes. What one has wrapped the other
# does not unwrap, under the same key.
#
# Seen with libsofthsm2 2.6.1-2.1 and libnss3 2:3.87.1-1+deb12u4 (Debian 12, amd64), a key of
# 32 bytes under an AES-256 key:
#
#   SoftHSM2 0x210A: 0x0, 40 bytes
#   SoftHSM2 0x210B: 0x70
#   NSS 0x210A: 0x0, 48 bytes
#   NSS 0x210B: 0x0, 40 bytes
#   NSS unwraps by 0x210A what SoftHSM2 wrapped by it: no
#   NSS unwraps by 0x210B what SoftHSM2 wrapped by 0x210A: yes
#
# 0x70 is CKR_MECHANISM_INVALID. The script fails if that changes.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
for package in libnss3=2:3.87.1-1+deb12u4 libnspr4 libp11-kit-dev=0.24.1-2 libsofthsm2=2.6.1-2.1 softhsm2=2.6.1-2.1; do
	apt-get download -q "$package" >/dev/null 2>&1
done
for deb in *.deb; do dpkg -x "$deb" root; done
mkdir tokens
printf 'directories.tokendir = %s/tokens\n' "$PWD" >softhsm2.conf
export SOFTHSM2_CONF="$PWD/softhsm2.conf"
softhsm=$PWD/root/usr/lib/softhsm/libsofthsm2.so
[ -e "$softhsm" ] || softhsm=$(find "$PWD/root" -name libsofthsm2.so | head -n 1)
root/usr/bin/softhsm2-util --module "$softhsm" --init-token --free --label t --so-pin 12345678 --pin 12345678 >/dev/null

cat >wrap.c <<'C'
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <string.h>

/* NSS's arguments of C_Initialize, with the text that says which database to use. */
struct arguments { void *create, *destroy, *lock, *unlock; CK_FLAGS flags; const char *text; void *reserved; };

static CK_FUNCTION_LIST *f;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE kek, key;

/* The same two keys in each module. */
static CK_OBJECT_HANDLE make(CK_BYTE fill)
{
	CK_BYTE value[32];
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	CK_OBJECT_CLASS class = CKO_SECRET_KEY;
	CK_KEY_TYPE type = CKK_AES;
	CK_ATTRIBUTE t[] = { { CKA_CLASS, &class, sizeof class }, { CKA_KEY_TYPE, &type, sizeof type }, { CKA_VALUE, value, 32 }, { CKA_TOKEN, &no, 1 },
		{ CKA_WRAP, &yes, 1 }, { CKA_UNWRAP, &yes, 1 }, { CKA_ENCRYPT, &yes, 1 }, { CKA_EXTRACTABLE, &yes, 1 }, { CKA_SENSITIVE, &no, 1 } };
	CK_OBJECT_HANDLE h = 0;
	memset(value, fill, 32);
	return f->C_CreateObject(session, t, 9, &h) ? 0 : h;
}

static int start(const char *path, int nss)
{
	void *library = dlopen(path, RTLD_NOW);
	CK_C_GetFunctionList get = library ? (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList") : NULL;
	struct arguments args = { .flags = CKF_OS_LOCKING_OK, .text = nss ? "configdir='' certPrefix='' keyPrefix='' secmod='' flags=readOnly,noCertDB,noModDB,forceOpen" : NULL };
	CK_SLOT_ID slots[8];
	CK_ULONG n = 8;
	if (!get || get(&f) || f->C_Initialize(&args) || f->C_GetSlotList(CK_TRUE, slots, &n) || f->C_OpenSession(slots[0], CKF_SERIAL_SESSION | (nss ? 0 : CKF_RW_SESSION), NULL, NULL, &session))
		return 0;
	if (!nss && f->C_Login(session, CKU_USER, (CK_BYTE *)"12345678", 8))
		return 0;
	return (kek = make(1)) && (key = make(2));
}

static CK_ULONG wrap(const char *name, CK_ULONG mechanism, CK_BYTE *out)
{
	CK_MECHANISM m = { mechanism, NULL, 0 };
	CK_ULONG n = 256;
	CK_RV rv = f->C_WrapKey(session, &m, kek, key, out, &n);
	if (rv)
		printf("%s 0x%lX: 0x%lx\n", name, mechanism, rv);
	else
		printf("%s 0x%lX: 0x0, %lu bytes\n", name, mechanism, n);
	return rv ? 0 : n;
}

static const char *unwraps(CK_ULONG mechanism, CK_BYTE *in, CK_ULONG n)
{
	CK_MECHANISM m = { mechanism, NULL, 0 };
	CK_BYTE value[64];
	CK_BBOOL no = CK_FALSE, yes = CK_TRUE;
	CK_OBJECT_CLASS class = CKO_SECRET_KEY;
	CK_KEY_TYPE type = CKK_AES;
	CK_ATTRIBUTE t[] = { { CKA_CLASS, &class, sizeof class }, { CKA_KEY_TYPE, &type, sizeof type }, { CKA_SENSITIVE, &no, 1 }, { CKA_EXTRACTABLE, &yes, 1 } };
	CK_ATTRIBUTE read = { CKA_VALUE, value, sizeof value };
	CK_OBJECT_HANDLE h;
	if (f->C_UnwrapKey(session, &m, kek, in, n, t, 4, &h) || f->C_GetAttributeValue(session, h, &read, 1))
		return "no";
	return read.ulValueLen == 32 && value[0] == 2 && value[31] == 2 ? "yes" : "wrongly";
}

int main(int argc, char **argv)
{
	CK_BYTE soft[256], out[256];
	if (argc < 3 || !start(argv[1], 0))
		return fprintf(stderr, "SoftHSM2 does not start\n"), 2;
	CK_ULONG n = wrap("SoftHSM2", 0x210A, soft);
	wrap("SoftHSM2", 0x210B, out);
	if (!start(argv[2], 1))
		return fprintf(stderr, "NSS does not start\n"), 2;
	wrap("NSS", 0x210A, out);
	wrap("NSS", 0x210B, out);
	printf("NSS unwraps by 0x210A what SoftHSM2 wrapped by it: %s\n", unwraps(0x210A, soft, n));
	printf("NSS unwraps by 0x210B what SoftHSM2 wrapped by 0x210A: %s\n", unwraps(0x210B, soft, n));
	return 0;
}
C
cc -o wrap wrap.c -Iroot/usr/include/p11-kit-1 -ldl
softokn=$(find root -name libsoftokn3.so)
LD_LIBRARY_PATH=$(dirname "$softokn") ./wrap "$softhsm" "$PWD/$softokn" | tee seen
cat >want <<'W'
SoftHSM2 0x210A: 0x0, 40 bytes
SoftHSM2 0x210B: 0x70
NSS 0x210A: 0x0, 48 bytes
NSS 0x210B: 0x0, 40 bytes
NSS unwraps by 0x210A what SoftHSM2 wrapped by it: no
NSS unwraps by 0x210B what SoftHSM2 wrapped by 0x210A: yes
W
cmp -s seen want || { echo "it behaves otherwise now" >&2; exit 1; }
