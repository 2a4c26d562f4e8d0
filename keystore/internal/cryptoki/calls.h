/* What the library's binding lacks: calls that do not trust what a module answers,
 * one for each operation. The types are those of PKCS#11 v2.40. */
#ifndef HYOK_CALLS_H
#define HYOK_CALLS_H

typedef unsigned long ulong_t; /* CK_ULONG */
typedef unsigned char byte_t;
typedef ulong_t rv_t;          /* CK_RV */

enum {
	CKR_OK_ = 0x00, CKR_HOST_MEMORY_ = 0x02, CKR_ATTRIBUTE_SENSITIVE_ = 0x11,
	CKR_ATTRIBUTE_TYPE_INVALID_ = 0x12, CKR_BUFFER_TOO_SMALL_ = 0x150
};

/* The members of CK_FUNCTION_LIST in their order. */
#define FUNCTIONS(F) \
	F(C_Initialize) F(C_Finalize) F(C_GetInfo) F(C_GetFunctionList) F(C_GetSlotList) F(C_GetSlotInfo) F(C_GetTokenInfo) \
	F(C_GetMechanismList) F(C_GetMechanismInfo) F(C_InitToken) F(C_InitPIN) F(C_SetPIN) F(C_OpenSession) F(C_CloseSession) \
	F(C_CloseAllSessions) F(C_GetSessionInfo) F(C_GetOperationState) F(C_SetOperationState) F(C_Login) F(C_Logout) \
	F(C_CreateObject) F(C_CopyObject) F(C_DestroyObject) F(C_GetObjectSize) F(C_GetAttributeValue) F(C_SetAttributeValue) \
	F(C_FindObjectsInit) F(C_FindObjects) F(C_FindObjectsFinal) F(C_EncryptInit) F(C_Encrypt) F(C_EncryptUpdate) \
	F(C_EncryptFinal) F(C_DecryptInit) F(C_Decrypt) F(C_DecryptUpdate) F(C_DecryptFinal) F(C_DigestInit) F(C_Digest) \
	F(C_DigestUpdate) F(C_DigestKey) F(C_DigestFinal) F(C_SignInit) F(C_Sign) F(C_SignUpdate) F(C_SignFinal) \
	F(C_SignRecoverInit) F(C_SignRecover) F(C_VerifyInit) F(C_Verify) F(C_VerifyUpdate) F(C_VerifyFinal) \
	F(C_VerifyRecoverInit) F(C_VerifyRecover) F(C_DigestEncryptUpdate) F(C_DecryptDigestUpdate) F(C_SignEncryptUpdate) \
	F(C_DecryptVerifyUpdate) F(C_GenerateKey) F(C_GenerateKeyPair) F(C_WrapKey) F(C_UnwrapKey) F(C_DeriveKey) \
	F(C_SeedRandom) F(C_GenerateRandom)

#define MEMBER(name) void *name;
struct functions {
	byte_t version[2];
	FUNCTIONS(MEMBER)
};

/* Loads the library at path as the binding does and looks at its list of functions,
 * of which it stays the owner. Unless it returns NULL, why says what is wrong. */
void *load_library(const char *path, char *why, ulong_t why_size);
void unload_library(void *library);

/* Returns the name of the first function that hyok calls and the module lacks. */
const char *missing_function(const struct functions *f);

/* C_Initialize with CKF_OS_LOCKING_OK and a text for the module, or NULL. */
rv_t initialize(const struct functions *f, char *parameters);

/* These fill a list that has room for so many and set the number that the module
 * answers, which may be larger. */
rv_t slot_list(const struct functions *f, int present, ulong_t *slots, ulong_t *count);
rv_t mechanism_list(const struct functions *f, ulong_t slot, ulong_t *mechanisms, ulong_t *count);
rv_t find_objects(const struct functions *f, ulong_t session, ulong_t *objects, ulong_t room, ulong_t *count);

/* Attributes of an object into values, which has room for so many bytes of each. A
 * length is what the module answers, which may be larger than room. With room 0 only
 * the lengths are asked for. */
enum { MOST_ATTRIBUTES = 32 };
rv_t attributes(const struct functions *f, ulong_t session, ulong_t object, const ulong_t *types, ulong_t n,
	byte_t *values, ulong_t room, ulong_t *lengths);

/* A CK_MECHANISM. The two texts that its parameters may have come beside it. */
enum { PLAIN, GCM, OAEP, PSS };
struct mechanism { ulong_t type, kind, hash, mgf, salt, first_length, second_length; };

/* The output of a call. */
struct output {
	ulong_t room;   /* for it */
	ulong_t length; /* as the module answers, which may be larger */
	byte_t *larger; /* not NULL: the output is here, since it needs more room, and has to be freed */
	int begun;      /* the first of two functions succeeded */
};

enum { ENCRYPT, DECRYPT, SIGN };
rv_t compute(const struct functions *f, int operation, ulong_t session, const struct mechanism *m, byte_t *first, byte_t *second,
	ulong_t key, byte_t *in, ulong_t in_length, byte_t *out, struct output *o);
rv_t wrap_key(const struct functions *f, ulong_t session, const struct mechanism *m, ulong_t wrapping, ulong_t key,
	byte_t *out, struct output *o);
void free_output(struct output *o);

rv_t generate_random(const struct functions *f, ulong_t session, byte_t *out, ulong_t n);

#endif
