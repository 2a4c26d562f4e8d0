#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "calls.h"

/* The largest output that a module is believed to need. */
enum { MOST_OUTPUT = 16 << 20 };

#define CALL(f, name, parameters) ((rv_t(*) parameters)(f)->name)

void *load_library(const char *path, char *why, ulong_t why_size)
{
	rv_t (*list)(struct functions **);
	struct functions *f = NULL;
	void *library = dlopen(path, RTLD_LAZY);
	if (!library) {
		snprintf(why, why_size, "%s", dlerror());
		return NULL;
	}
	*(void **)&list = dlsym(library, "C_GetFunctionList");
	rv_t rv = list ? list(&f) : CKR_OK_;
	if (!list)
		snprintf(why, why_size, "it has no C_GetFunctionList");
	else if (rv != CKR_OK_)
		snprintf(why, why_size, "its C_GetFunctionList answers 0x%lX", rv);
	else if (!f)
		snprintf(why, why_size, "its C_GetFunctionList answers nothing");
	else
		return library;
	dlclose(library);
	return NULL;
}

void unload_library(void *library) { dlclose(library); }

const char *missing_function(const struct functions *f)
{
#define LOOK(name) if (!f->name) return #name;
	LOOK(C_Initialize) LOOK(C_Finalize) LOOK(C_GetSlotList) LOOK(C_GetTokenInfo) LOOK(C_GetMechanismList) LOOK(C_GetMechanismInfo)
	LOOK(C_InitToken) LOOK(C_InitPIN) LOOK(C_OpenSession) LOOK(C_CloseSession) LOOK(C_GetSessionInfo) LOOK(C_Login) LOOK(C_Logout)
	LOOK(C_CreateObject) LOOK(C_CopyObject) LOOK(C_DestroyObject) LOOK(C_GetAttributeValue) LOOK(C_SetAttributeValue)
	LOOK(C_FindObjectsInit) LOOK(C_FindObjects) LOOK(C_FindObjectsFinal) LOOK(C_EncryptInit) LOOK(C_Encrypt) LOOK(C_DecryptInit)
	LOOK(C_Decrypt) LOOK(C_SignInit) LOOK(C_Sign) LOOK(C_GenerateKey) LOOK(C_GenerateKeyPair) LOOK(C_WrapKey) LOOK(C_UnwrapKey)
	LOOK(C_DeriveKey) LOOK(C_GenerateRandom)
	return NULL;
}

rv_t initialize(const struct functions *f, char *parameters)
{
	/* CK_C_INITIALIZE_ARGS. NSS reads another pointer behind it, which must be NULL. */
	struct { void *mutexes[4]; ulong_t flags; char *parameters; void *reserved; } args = { .flags = 2, .parameters = parameters };
	return CALL(f, C_Initialize, (void *))(&args);
}

rv_t slot_list(const struct functions *f, int present, ulong_t *slots, ulong_t *count)
{
	return CALL(f, C_GetSlotList, (byte_t, ulong_t *, ulong_t *))(present != 0, slots, count);
}

rv_t mechanism_list(const struct functions *f, ulong_t slot, ulong_t *mechanisms, ulong_t *count)
{
	return CALL(f, C_GetMechanismList, (ulong_t, ulong_t *, ulong_t *))(slot, mechanisms, count);
}

rv_t find_objects(const struct functions *f, ulong_t session, ulong_t *objects, ulong_t room, ulong_t *count)
{
	return CALL(f, C_FindObjects, (ulong_t, ulong_t *, ulong_t, ulong_t *))(session, objects, room, count);
}

struct attribute { ulong_t type; void *value; ulong_t length; };

rv_t attributes(const struct functions *f, ulong_t session, ulong_t object, const ulong_t *types, ulong_t n,
	byte_t *values, ulong_t room, ulong_t *lengths)
{
	struct attribute a[MOST_ATTRIBUTES];
	for (ulong_t i = 0; i < n; i++)
		a[i] = (struct attribute){ types[i], room ? values + i * room : NULL, room };
	rv_t rv = CALL(f, C_GetAttributeValue, (ulong_t, ulong_t, struct attribute *, ulong_t))(session, object, a, n);
	for (ulong_t i = 0; i < n; i++)
		lengths[i] = a[i].length;
	return rv;
}

struct native { ulong_t type; void *parameters; ulong_t length; };

/* The parameters of a mechanism. */
union parameters {
	struct { byte_t *iv; ulong_t iv_length, iv_bits; byte_t *aad; ulong_t aad_length, tag_bits; } gcm;
	struct { ulong_t hash, mgf, source; void *label; ulong_t label_length; } oaep;
	struct { ulong_t hash, mgf, salt; } pss;
};

static struct native make(const struct mechanism *m, byte_t *first, byte_t *second, union parameters *p)
{
	memset(p, 0, sizeof *p);
	switch (m->kind) {
	case GCM:
		p->gcm.iv = m->first_length ? first : NULL;
		p->gcm.iv_length = m->first_length;
		p->gcm.iv_bits = 8 * m->first_length;
		p->gcm.aad = m->second_length ? second : NULL;
		p->gcm.aad_length = m->second_length;
		p->gcm.tag_bits = 128;
		return (struct native){ m->type, p, sizeof p->gcm };
	case OAEP:
		p->oaep.hash = m->hash;
		p->oaep.mgf = m->mgf;
		p->oaep.source = 1; /* CKZ_DATA_SPECIFIED */
		return (struct native){ m->type, p, sizeof p->oaep };
	case PSS:
		p->pss.hash = m->hash;
		p->pss.mgf = m->mgf;
		p->pss.salt = m->salt;
		return (struct native){ m->type, p, sizeof p->pss };
	}
	return (struct native){ m->type, NULL, 0 };
}

/* Provides more room after CKR_BUFFER_TOO_SMALL, if the module says how much. */
static int enlarge(rv_t rv, struct output *o)
{
	if (rv != CKR_BUFFER_TOO_SMALL_ || o->length <= o->room || o->length > MOST_OUTPUT)
		return 0;
	o->room = o->length;
	o->larger = malloc(o->room);
	return o->larger != NULL;
}

rv_t compute(const struct functions *f, int operation, ulong_t session, const struct mechanism *m, byte_t *first, byte_t *second,
	ulong_t key, byte_t *in, ulong_t in_length, byte_t *out, struct output *o)
{
	static byte_t nothing;
	union parameters p;
	struct native n = make(m, first, second, &p);
	void *begin = operation == ENCRYPT ? f->C_EncryptInit : operation == DECRYPT ? f->C_DecryptInit : f->C_SignInit;
	void *finish = operation == ENCRYPT ? f->C_Encrypt : operation == DECRYPT ? f->C_Decrypt : f->C_Sign;
	rv_t (*call)(ulong_t, byte_t *, ulong_t, byte_t *, ulong_t *) = finish;
	rv_t rv = ((rv_t(*)(ulong_t, struct native *, ulong_t))begin)(session, &n, key);
	if (rv != CKR_OK_)
		return rv;
	o->begun = 1;
	if (!in_length)
		in = &nothing;
	o->length = o->room;
	rv = call(session, in, in_length, out, &o->length);
	/* The operation is still active then (PKCS#11 v2.40, section 5.2). */
	if (enlarge(rv, o))
		rv = call(session, in, in_length, o->larger, &o->length);
	return rv;
}

rv_t wrap_key(const struct functions *f, ulong_t session, const struct mechanism *m, ulong_t wrapping, ulong_t key,
	byte_t *out, struct output *o)
{
	union parameters p;
	struct native n = make(m, NULL, NULL, &p);
	rv_t (*call)(ulong_t, struct native *, ulong_t, ulong_t, byte_t *, ulong_t *) = f->C_WrapKey;
	o->length = o->room;
	rv_t rv = call(session, &n, wrapping, key, out, &o->length);
	if (enlarge(rv, o))
		rv = call(session, &n, wrapping, key, o->larger, &o->length);
	return rv;
}

void free_output(struct output *o) { free(o->larger); }

rv_t generate_random(const struct functions *f, ulong_t session, byte_t *out, ulong_t n)
{
	return CALL(f, C_GenerateRandom, (ulong_t, byte_t *, ulong_t))(session, out, n);
}
