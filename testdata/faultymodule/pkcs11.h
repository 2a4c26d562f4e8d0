/*
 * The little of PKCS#11 v2.40 that the faulty module looks into, and all of its
 * functions in the order of CK_FUNCTION_LIST.
 */
#ifndef FAULTY_PKCS11_H
#define FAULTY_PKCS11_H

typedef unsigned long UL;
typedef unsigned char BYTE;
typedef void *P;
typedef UL RV;

struct mechanism { UL type; P param; UL len; };
struct attribute { UL type; P value; UL len; };
struct gcm { BYTE *iv; UL iv_len, iv_bits; BYTE *aad; UL aad_len, tag_bits; };
struct slot_info { BYTE description[64], manufacturer[32]; UL flags; /* and more */ };
struct token_info {
	BYTE label[32], manufacturer[32], model[16], serial[16];
	UL flags, max_sessions, sessions, max_rw_sessions, rw_sessions, max_pin, min_pin; /* and more */
};
struct initialize_args { P mutexes[4]; UL flags; char *reserved; };
struct session_info { UL slot; /* and more */ };

enum {
	OK = 0, HOST_MEMORY = 0x02, SLOT_ID_INVALID = 0x03, GENERAL_ERROR = 0x05,
	ARGUMENTS_BAD = 0x07, MECHANISM_INVALID = 0x70, MECHANISM_PARAM_INVALID = 0x71, OBJECT_HANDLE_INVALID = 0x82,
	SESSION_COUNT = 0xb1, TEMPLATE_INCONSISTENT = 0xd1, TOKEN_NOT_PRESENT = 0xe0, WRAPPED_KEY_INVALID = 0x110, BUFFER_TOO_SMALL = 0x150
};
enum {
	CLASS = 0x00, TOKEN = 0x01, LABEL = 0x03, KEY_TYPE = 0x100, /* CKA_ */
	AES_GCM = 0x1087, WRAP_PAD = 0x210a, WRAP_KWP = 0x210b, /* CKM_AES_GCM, CKM_AES_KEY_WRAP_PAD and _KWP */
	RW_SESSION = 0x02,                                 /* CKF_RW_SESSION */
	TOKEN_PRESENT = 0x01, TOKEN_INITIALIZED = 0x400    /* of slots, of tokens */
};

/*
 * Each function: its name, its parameters, the arguments of the forwarded call.
 *   PLAIN  is forwarded as it is;
 *   SIZES  also: with no room for the output it only asks for its length;
 *   TURNS  also: slots and handles are translated, in its arguments by the first
 *          expression (an RV), in its output by the second;
 *   OWN    is written by hand.
 */
#define FUNCTIONS(PLAIN, SIZES, TURNS, OWN) \
	OWN(C_Initialize, (P a)) \
	OWN(C_Finalize, (P a)) \
	PLAIN(C_GetInfo, (P a), (a)) \
	OWN(C_GetFunctionList, (P a)) \
	OWN(C_GetSlotList, (BYTE a, P b, P c)) \
	OWN(C_GetSlotInfo, (UL a, P b)) \
	OWN(C_GetTokenInfo, (UL a, P b)) \
	OWN(C_GetMechanismList, (UL a, P b, P c)) \
	TURNS(C_GetMechanismInfo, (UL a, UL b, P c), (a, b, c), hidden(b) ?: slot_in(&a), NONE) \
	TURNS(C_InitToken, (UL a, P b, UL c, P d), (a, b, c, d), slot_in(&a), NONE) \
	PLAIN(C_InitPIN, (UL a, P b, UL c), (a, b, c)) \
	PLAIN(C_SetPIN, (UL a, P b, UL c, P d, UL e), (a, b, c, d, e)) \
	OWN(C_OpenSession, (UL a, UL b, P c, P d, P e)) \
	OWN(C_CloseSession, (UL a)) \
	OWN(C_CloseAllSessions, (UL a)) \
	TURNS(C_GetSessionInfo, (UL a, P b), (a, b), OK, slot_out(b)) \
	SIZES(C_GetOperationState, (UL a, P b, P c), (a, b, c), b) \
	TURNS(C_SetOperationState, (UL a, P b, UL c, UL d, UL e), (a, b, c, d, e), key_in(&d) ?: key_in(&e), NONE) \
	PLAIN(C_Login, (UL a, UL b, P c, UL d), (a, b, c, d)) \
	PLAIN(C_Logout, (UL a), (a)) \
	TURNS(C_CreateObject, (UL a, P b, UL c, P d), (a, b, c, d), template_trouble(b, c), out(d, 1)) \
	TURNS(C_CopyObject, (UL a, UL b, P c, UL d, P e), (a, b, c, d, e), object_in(&b), out(e, 1)) \
	TURNS(C_DestroyObject, (UL a, UL b), (a, b), object_in(&b), NONE) \
	TURNS(C_GetObjectSize, (UL a, UL b, P c), (a, b, c), object_in(&b), NONE) \
	OWN(C_GetAttributeValue, (UL a, UL b, P c, UL d)) \
	TURNS(C_SetAttributeValue, (UL a, UL b, P c, UL d), (a, b, c, d), object_in(&b), NONE) \
	PLAIN(C_FindObjectsInit, (UL a, P b, UL c), (a, b, c)) \
	TURNS(C_FindObjects, (UL a, P b, UL c, P d), (a, b, c, d), OK, (out(b, *(UL *)d), claim(I_C_FindObjects, d), blind(d))) \
	PLAIN(C_FindObjectsFinal, (UL a), (a)) \
	OWN(C_EncryptInit, (UL a, P b, UL c)) \
	OWN(C_Encrypt, (UL a, P b, UL c, P d, P e)) \
	SIZES(C_EncryptUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	SIZES(C_EncryptFinal, (UL a, P b, P c), (a, b, c), b) \
	TURNS(C_DecryptInit, (UL a, P b, UL c), (a, b, c), begins(b) ?: key_in(&c) ?: object_trouble(I_C_DecryptInit, a, c), note_gcm(a, b)) \
	OWN(C_Decrypt, (UL a, P b, UL c, P d, P e)) \
	SIZES(C_DecryptUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	SIZES(C_DecryptFinal, (UL a, P b, P c), (a, b, c), b) \
	TURNS(C_DigestInit, (UL a, P b), (a, b), begins(b), NONE) \
	SIZES(C_Digest, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	PLAIN(C_DigestUpdate, (UL a, P b, UL c), (a, b, c)) \
	TURNS(C_DigestKey, (UL a, UL b), (a, b), key_in(&b), NONE) \
	SIZES(C_DigestFinal, (UL a, P b, P c), (a, b, c), b) \
	TURNS(C_SignInit, (UL a, P b, UL c), (a, b, c), begins(b) ?: key_in(&c) ?: object_trouble(I_C_SignInit, a, c), NONE) \
	SIZES(C_Sign, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	PLAIN(C_SignUpdate, (UL a, P b, UL c), (a, b, c)) \
	SIZES(C_SignFinal, (UL a, P b, P c), (a, b, c), b) \
	TURNS(C_SignRecoverInit, (UL a, P b, UL c), (a, b, c), begins(b) ?: key_in(&c), NONE) \
	SIZES(C_SignRecover, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	TURNS(C_VerifyInit, (UL a, P b, UL c), (a, b, c), begins(b) ?: key_in(&c), NONE) \
	PLAIN(C_Verify, (UL a, P b, UL c, P d, UL e), (a, b, c, d, e)) \
	PLAIN(C_VerifyUpdate, (UL a, P b, UL c), (a, b, c)) \
	PLAIN(C_VerifyFinal, (UL a, P b, UL c), (a, b, c)) \
	TURNS(C_VerifyRecoverInit, (UL a, P b, UL c), (a, b, c), begins(b) ?: key_in(&c), NONE) \
	SIZES(C_VerifyRecover, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	SIZES(C_DigestEncryptUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	SIZES(C_DecryptDigestUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	SIZES(C_SignEncryptUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	SIZES(C_DecryptVerifyUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), d) \
	OWN(C_GenerateKey, (UL a, P b, P c, UL d, P e)) \
	OWN(C_GenerateKeyPair, (UL a, P b, P c, UL d, P e, UL f, P g, P h)) \
	OWN(C_WrapKey, (UL a, P b, UL c, UL d, P e, P f)) \
	OWN(C_UnwrapKey, (UL a, P b, UL c, P d, UL e, P f, UL g, P h)) \
	TURNS(C_DeriveKey, (UL a, P b, UL c, P d, UL e, P f), (a, b, c, d, e, f), begins(b) ?: key_in(&c), out(f, 1)) \
	PLAIN(C_SeedRandom, (UL a, P b, UL c), (a, b, c)) \
	PLAIN(C_GenerateRandom, (UL a, P b, UL c), (a, b, c)) \
	PLAIN(C_GetFunctionStatus, (UL a), (a)) \
	PLAIN(C_CancelFunction, (UL a), (a)) \
	TURNS(C_WaitForSlotEvent, (UL a, P b, P c), (a, b, c), OK, slot_out(b))

#define NONE ((void)0)
#define INDEX(name, ...) I_##name,
enum { FUNCTIONS(INDEX, INDEX, INDEX, INDEX) FUNCTION_COUNT };

struct function_list { BYTE version[2]; void (*fn[FUNCTION_COUNT])(void); };

#endif
