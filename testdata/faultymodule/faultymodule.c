/*
 * A PKCS#11 module for tests: it forwards every call to a real module and, as a
 * control file says, behaves like tokens of another make or like a sick one.
 *
 * Three files stand beside this library, named after it, so that copies of it
 * under different paths can be used in one process without sharing anything:
 *
 *   NAME.real     the real module. A library that is loaded twice from one file
 *                 is one library, with one C_Initialize and one C_Finalize: a
 *                 copy of this module that is to be independent of the others
 *                 must have a copy of the real one, not a link to it.
 *   NAME.control  what to do, read again at each call if it has changed. It is
 *                 replaced by rename, and each replacement has another
 *                 modification time. No file: only forward.
 *   NAME.counts   made here: how often each function was called, see struct count.
 *
 * The control file has one behaviour a line. FUNCTION is a name such as
 * C_Decrypt, or "any"; CODE is a number such as 0x30. Of C_Encrypt and C_Decrypt
 * the calls that only ask for the length never fail or hang.
 *
 *   iv written-back           C_EncryptInit demands a zeroed 12-byte GCM IV;
 *                             C_Encrypt writes the one it used into it
 *   iv appended               C_EncryptInit demands no GCM IV; C_Encrypt appends
 *                             the 16-byte one it used to its output
 *   tag before                GCM output and input is tag, ciphertext
 *   readonly-sessions refused C_OpenSession demands CKF_RW_SESSION
 *   max-sessions N            C_GetTokenInfo says so and C_OpenSession keeps to it
 *   no-token-keys CODE        C_GenerateKey makes session keys only
 *   badtag CODE               a failure of the real C_Decrypt becomes CODE
 *   fail FUNCTION CODE [skip M] [count N]
 *                             calls fail: after M others, and N of them only
 *   hang FUNCTION [skip M] [count N]
 *                             calls hang until a control file has no such line
 *   lose-sessions N           whenever N changes: all sessions are closed
 *   renumber N                whenever N changes: all object handles change
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The little of PKCS#11 v2.40 that is looked into. */
typedef unsigned long UL;
typedef unsigned char BYTE;
typedef void *P;
typedef UL RV;

struct mechanism { UL type; P param; UL len; };
struct attribute { UL type; P value; UL len; };
struct gcm { BYTE *iv; UL iv_len, iv_bits; BYTE *aad; UL aad_len, tag_bits; };
struct token_info {
	BYTE label[32], manufacturer[32], model[16], serial[16];
	UL flags, max_sessions, sessions; /* and more */
};

enum {
	OK = 0, HOST_MEMORY = 0x02, GENERAL_ERROR = 0x05, ARGUMENTS_BAD = 0x07,
	MECHANISM_PARAM_INVALID = 0x71, SESSION_COUNT = 0xb1, BUFFER_TOO_SMALL = 0x150,
	TOKEN = 0x01, RW_SESSION = 0x02, AES_GCM = 0x1087, TAG_SIZE = 16
};

/*
 * All functions in the order of CK_FUNCTION_LIST: name, parameters, arguments of
 * the forwarded call, and what to do with its output. in() and out() translate
 * object handles. PLAIN ones are forwarded by a macro, OWN ones written below.
 */
#define FUNCTIONS(PLAIN, OWN) \
	PLAIN(C_Initialize, (P a), (a), NONE) \
	OWN(C_Finalize, (P a)) \
	PLAIN(C_GetInfo, (P a), (a), NONE) \
	OWN(C_GetFunctionList, (P a)) \
	PLAIN(C_GetSlotList, (BYTE a, P b, P c), (a, b, c), NONE) \
	PLAIN(C_GetSlotInfo, (UL a, P b), (a, b), NONE) \
	OWN(C_GetTokenInfo, (UL a, P b)) \
	PLAIN(C_GetMechanismList, (UL a, P b, P c), (a, b, c), NONE) \
	PLAIN(C_GetMechanismInfo, (UL a, UL b, P c), (a, b, c), NONE) \
	PLAIN(C_InitToken, (UL a, P b, UL c, P d), (a, b, c, d), NONE) \
	PLAIN(C_InitPIN, (UL a, P b, UL c), (a, b, c), NONE) \
	PLAIN(C_SetPIN, (UL a, P b, UL c, P d, UL e), (a, b, c, d, e), NONE) \
	OWN(C_OpenSession, (UL a, UL b, P c, P d, P e)) \
	OWN(C_CloseSession, (UL a)) \
	OWN(C_CloseAllSessions, (UL a)) \
	PLAIN(C_GetSessionInfo, (UL a, P b), (a, b), NONE) \
	PLAIN(C_GetOperationState, (UL a, P b, P c), (a, b, c), NONE) \
	PLAIN(C_SetOperationState, (UL a, P b, UL c, UL d, UL e), (a, b, c, in(d), in(e)), NONE) \
	PLAIN(C_Login, (UL a, UL b, P c, UL d), (a, b, c, d), NONE) \
	PLAIN(C_Logout, (UL a), (a), NONE) \
	PLAIN(C_CreateObject, (UL a, P b, UL c, P d), (a, b, c, d), out(d, 1)) \
	PLAIN(C_CopyObject, (UL a, UL b, P c, UL d, P e), (a, in(b), c, d, e), out(e, 1)) \
	PLAIN(C_DestroyObject, (UL a, UL b), (a, in(b)), NONE) \
	PLAIN(C_GetObjectSize, (UL a, UL b, P c), (a, in(b), c), NONE) \
	PLAIN(C_GetAttributeValue, (UL a, UL b, P c, UL d), (a, in(b), c, d), NONE) \
	PLAIN(C_SetAttributeValue, (UL a, UL b, P c, UL d), (a, in(b), c, d), NONE) \
	PLAIN(C_FindObjectsInit, (UL a, P b, UL c), (a, b, c), NONE) \
	PLAIN(C_FindObjects, (UL a, P b, UL c, P d), (a, b, c, d), out(b, *(UL *)d)) \
	PLAIN(C_FindObjectsFinal, (UL a), (a), NONE) \
	OWN(C_EncryptInit, (UL a, P b, UL c)) \
	OWN(C_Encrypt, (UL a, P b, UL c, P d, P e)) \
	PLAIN(C_EncryptUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_EncryptFinal, (UL a, P b, P c), (a, b, c), NONE) \
	PLAIN(C_DecryptInit, (UL a, P b, UL c), (a, b, in(c)), note_gcm(a, b)) \
	OWN(C_Decrypt, (UL a, P b, UL c, P d, P e)) \
	PLAIN(C_DecryptUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_DecryptFinal, (UL a, P b, P c), (a, b, c), NONE) \
	PLAIN(C_DigestInit, (UL a, P b), (a, b), NONE) \
	PLAIN(C_Digest, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_DigestUpdate, (UL a, P b, UL c), (a, b, c), NONE) \
	PLAIN(C_DigestKey, (UL a, UL b), (a, in(b)), NONE) \
	PLAIN(C_DigestFinal, (UL a, P b, P c), (a, b, c), NONE) \
	PLAIN(C_SignInit, (UL a, P b, UL c), (a, b, in(c)), NONE) \
	PLAIN(C_Sign, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_SignUpdate, (UL a, P b, UL c), (a, b, c), NONE) \
	PLAIN(C_SignFinal, (UL a, P b, P c), (a, b, c), NONE) \
	PLAIN(C_SignRecoverInit, (UL a, P b, UL c), (a, b, in(c)), NONE) \
	PLAIN(C_SignRecover, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_VerifyInit, (UL a, P b, UL c), (a, b, in(c)), NONE) \
	PLAIN(C_Verify, (UL a, P b, UL c, P d, UL e), (a, b, c, d, e), NONE) \
	PLAIN(C_VerifyUpdate, (UL a, P b, UL c), (a, b, c), NONE) \
	PLAIN(C_VerifyFinal, (UL a, P b, UL c), (a, b, c), NONE) \
	PLAIN(C_VerifyRecoverInit, (UL a, P b, UL c), (a, b, in(c)), NONE) \
	PLAIN(C_VerifyRecover, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_DigestEncryptUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_DecryptDigestUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_SignEncryptUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	PLAIN(C_DecryptVerifyUpdate, (UL a, P b, UL c, P d, P e), (a, b, c, d, e), NONE) \
	OWN(C_GenerateKey, (UL a, P b, P c, UL d, P e)) \
	PLAIN(C_GenerateKeyPair, (UL a, P b, P c, UL d, P e, UL f, P g, P h), (a, b, c, d, e, f, g, h), (out(g, 1), out(h, 1))) \
	PLAIN(C_WrapKey, (UL a, P b, UL c, UL d, P e, P f), (a, b, in(c), in(d), e, f), NONE) \
	PLAIN(C_UnwrapKey, (UL a, P b, UL c, P d, UL e, P f, UL g, P h), (a, b, in(c), d, e, f, g, h), out(h, 1)) \
	PLAIN(C_DeriveKey, (UL a, P b, UL c, P d, UL e, P f), (a, b, in(c), d, e, f), out(f, 1)) \
	PLAIN(C_SeedRandom, (UL a, P b, UL c), (a, b, c), NONE) \
	PLAIN(C_GenerateRandom, (UL a, P b, UL c), (a, b, c), NONE) \
	PLAIN(C_GetFunctionStatus, (UL a), (a), NONE) \
	PLAIN(C_CancelFunction, (UL a), (a), NONE) \
	PLAIN(C_WaitForSlotEvent, (UL a, P b, P c), (a, b, c), NONE)

#define NONE ((void)0)
#define INDEX(name, ...) I_##name,
enum { FUNCTIONS(INDEX, INDEX) FUNCTION_COUNT };
#define NAME(name, ...) #name,
static const char *const names[] = { FUNCTIONS(NAME, NAME) };

struct function_list { BYTE version[2]; void (*fn[FUNCTION_COUNT])(void); };

static struct function_list *real, own;
#define REAL(name, params) ((RV(*) params)real->fn[I_##name])

/* The records of NAME.counts: one for each function, then what is not a function. */
struct count { char name[56]; unsigned long long n; };
enum { OPEN_SESSIONS = FUNCTION_COUNT, PEAK_SESSIONS, HANGING_CALLS, COUNTS };
static struct count *counts;

/* What the control file says. All of it is guarded by mu. */
enum { FAIL, HANG };
struct rule { int kind, fn; RV code; long skip, left; };
enum { IV_CALLER, IV_WRITTEN_BACK, IV_APPENDED };
static struct {
	int iv, tag_before, rw_only;
	RV badtag, no_token_keys;
	UL max_sessions, lose, renumber;
	struct rule rules[64];
	int n;
} control;

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static char self[PATH_MAX - 16];
static struct timespec control_time;
static int control_seen;
static UL lost, slots[16];
static int slot_count;

/* GCM operations under way, by session; guarded by mu. */
static struct op { UL session; BYTE *caller_iv; BYTE iv[16]; int mode, tag_before, gcm; } ops[512];

/* Every call holds calls for reading, so that sessions are not lost under it. */
static pthread_rwlock_t calls = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

static void beside(char *path, const char *suffix)
{
	snprintf(path, PATH_MAX, "%s.%s", self, suffix);
}

static int function_index(const char *name)
{
	for (int i = 0; i < FUNCTION_COUNT; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	if (strcmp(name, "any") == 0)
		return -1;
	fprintf(stderr, "faultymodule: no function %s\n", name);
	abort();
}

static void add_rule(int kind, char *words)
{
	struct rule r = { kind, 0, 0, 0, -1 };
	char *next, *word = strtok_r(words, " ", &next);
	r.fn = function_index(word ? word : "");
	if (kind == FAIL && (word = strtok_r(NULL, " ", &next)))
		r.code = strtoul(word, NULL, 0);
	while ((word = strtok_r(NULL, " ", &next))) {
		char *value = strtok_r(NULL, " ", &next);
		*(strcmp(word, "skip") == 0 ? &r.skip : &r.left) = value ? atol(value) : 0;
	}
	if (control.n < (int)(sizeof control.rules / sizeof control.rules[0]))
		control.rules[control.n++] = r;
}

static void set(char *line)
{
	line[strcspn(line, "\n")] = 0;
	char *value = strchr(line, ' ');
	if (!value)
		return;
	*value++ = 0;
	UL number = strtoul(value, NULL, 0);
	if (!strcmp(line, "iv"))
		control.iv = !strcmp(value, "appended") ? IV_APPENDED : IV_WRITTEN_BACK;
	else if (!strcmp(line, "tag"))
		control.tag_before = 1;
	else if (!strcmp(line, "readonly-sessions"))
		control.rw_only = 1;
	else if (!strcmp(line, "max-sessions"))
		control.max_sessions = number;
	else if (!strcmp(line, "no-token-keys"))
		control.no_token_keys = number;
	else if (!strcmp(line, "badtag"))
		control.badtag = number;
	else if (!strcmp(line, "fail"))
		add_rule(FAIL, value);
	else if (!strcmp(line, "hang"))
		add_rule(HANG, value);
	else if (!strcmp(line, "lose-sessions"))
		control.lose = number;
	else if (!strcmp(line, "renumber"))
		control.renumber = number;
	else {
		fprintf(stderr, "faultymodule: no behaviour %s\n", line);
		abort();
	}
}

/* Reads the control file if it has changed; the caller holds mu. */
static void read_control(void)
{
	char path[PATH_MAX], line[256];
	struct stat st;
	beside(path, "control");
	if (stat(path, &st) != 0)
		return;
	if (control_seen && !memcmp(&st.st_mtim, &control_time, sizeof control_time))
		return;
	FILE *f = fopen(path, "r");
	/* The times of the file that was opened: it may be a newer one. */
	if (!f || fstat(fileno(f), &st) != 0)
		abort();
	control_seen = 1;
	control_time = st.st_mtim;
	UL lose = control.lose, renumber = control.renumber;
	memset(&control, 0, sizeof control);
	control.lose = lose;
	control.renumber = renumber;
	while (fgets(line, sizeof line, f))
		set(line);
	fclose(f);
}

static struct rule *rule_for(int kind, int fn)
{
	for (int i = 0; i < control.n; i++)
		if (control.rules[i].kind == kind && (control.rules[i].fn == fn || control.rules[i].fn == -1))
			return &control.rules[i];
	return NULL;
}

static int hits(struct rule *r)
{
	if (!r || r->left == 0)
		return 0;
	if (r->skip > 0) {
		r->skip--;
		return 0;
	}
	if (r->left > 0)
		r->left--;
	return 1;
}

/* Counts sessions; the caller holds mu. */
static void count_sessions(long change)
{
	counts[OPEN_SESSIONS].n += change;
	if (counts[OPEN_SESSIONS].n > counts[PEAK_SESSIONS].n)
		counts[PEAK_SESSIONS].n = counts[OPEN_SESSIONS].n;
}

/* Closes all sessions; the caller holds calls for writing, and mu. */
static void lose_sessions(void)
{
	for (int i = 0; i < slot_count; i++)
		REAL(C_CloseAllSessions, (UL))(slots[i]);
	counts[OPEN_SESSIONS].n = 0;
	memset(ops, 0, sizeof ops);
}

/*
 * Brings control up to date and returns with mu held. A loss of sessions that it
 * demands is over then: a call that sees a new control file never runs on a
 * session of the old one, whichever call happens to close them.
 */
static void lock_control(void)
{
	pthread_mutex_lock(&mu);
	read_control();
	if (control.lose == lost)
		return;
	pthread_mutex_unlock(&mu);
	pthread_rwlock_wrlock(&calls); /* never while mu is held: calls under way take it */
	pthread_mutex_lock(&mu);
	if (control.lose != lost) {
		lost = control.lose;
		lose_sessions();
	}
	pthread_rwlock_unlock(&calls);
}

/* Begins a call: unless it returns an error, calls is held and after() is due. */
static RV begin(int fn, int may_fail)
{
	RV rv = OK;
	lock_control();
	counts[fn].n++;
	if (may_fail && hits(rule_for(HANG, fn))) {
		counts[HANGING_CALLS].n++;
		while (rule_for(HANG, fn)) {
			struct timespec pause = { 0, 2000000 };
			pthread_mutex_unlock(&mu);
			nanosleep(&pause, NULL);
			lock_control();
		}
		counts[HANGING_CALLS].n--;
	}
	struct rule *r = may_fail ? rule_for(FAIL, fn) : NULL;
	if (hits(r))
		rv = r->code;
	pthread_mutex_unlock(&mu);
	if (rv == OK)
		pthread_rwlock_rdlock(&calls);
	return rv;
}

static RV after(RV rv)
{
	pthread_rwlock_unlock(&calls);
	return rv;
}

static UL handle_offset(void)
{
	pthread_mutex_lock(&mu);
	UL n = control.renumber;
	pthread_mutex_unlock(&mu);
	return n * 0x1000000;
}

static UL in(UL handle) { return handle ? handle - handle_offset() : 0; }

static void out(P handles, UL n)
{
	UL offset = handle_offset();
	for (UL i = 0; i < n; i++)
		((UL *)handles)[i] += offset;
}

/* The entry of a session among ops, a free one if it has none; mu is held. */
static struct op *op_of(UL session)
{
	struct op *free_one = NULL;
	for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
		if (ops[i].session == session)
			return &ops[i];
		if (!ops[i].session && !free_one)
			free_one = &ops[i];
	}
	if (!free_one)
		abort();
	memset(free_one, 0, sizeof *free_one);
	free_one->session = session;
	return free_one;
}

static struct op get_op(UL session)
{
	pthread_mutex_lock(&mu);
	struct op o = *op_of(session);
	pthread_mutex_unlock(&mu);
	return o;
}

static void forget_op(UL session)
{
	pthread_mutex_lock(&mu);
	memset(op_of(session), 0, sizeof(struct op));
	pthread_mutex_unlock(&mu);
}

static void note_gcm(UL session, const struct mechanism *m)
{
	pthread_mutex_lock(&mu);
	struct op *o = op_of(session);
	o->gcm = m && m->type == AES_GCM;
	o->tag_before = o->gcm && control.tag_before;
	o->mode = o->gcm ? control.iv : IV_CALLER;
	pthread_mutex_unlock(&mu);
}

#define FORWARD(name, params, args, output) \
	static RV f_##name params \
	{ \
		RV rv = begin(I_##name, 1); \
		if (rv != OK) \
			return rv; \
		rv = REAL(name, params) args; \
		if (rv == OK) \
			output; \
		return after(rv); \
	}
#define DECLARE(name, params) static RV f_##name params;
FUNCTIONS(FORWARD, DECLARE)

static RV f_C_Finalize(P a)
{
	RV rv = begin(I_C_Finalize, 1);
	if (rv != OK)
		return rv;
	rv = REAL(C_Finalize, (P))(a);
	if (rv == OK) {
		pthread_mutex_lock(&mu);
		counts[OPEN_SESSIONS].n = 0;
		memset(ops, 0, sizeof ops);
		pthread_mutex_unlock(&mu);
	}
	return after(rv);
}

static RV f_C_GetTokenInfo(UL slot, P info)
{
	RV rv = begin(I_C_GetTokenInfo, 1);
	if (rv != OK)
		return rv;
	rv = REAL(C_GetTokenInfo, (UL, P))(slot, info);
	pthread_mutex_lock(&mu);
	if (rv == OK && control.max_sessions)
		((struct token_info *)info)->max_sessions = control.max_sessions;
	pthread_mutex_unlock(&mu);
	return after(rv);
}

static void note_slot(UL slot)
{
	for (int i = 0; i < slot_count; i++)
		if (slots[i] == slot)
			return;
	if (slot_count < (int)(sizeof slots / sizeof slots[0]))
		slots[slot_count++] = slot;
}

static RV f_C_OpenSession(UL slot, UL flags, P c, P d, P session)
{
	RV rv = begin(I_C_OpenSession, 1);
	if (rv != OK)
		return rv;
	/* Held throughout, so that the number of sessions is exact. */
	pthread_mutex_lock(&mu);
	if (control.rw_only && !(flags & RW_SESSION))
		rv = ARGUMENTS_BAD;
	else if (control.max_sessions && counts[OPEN_SESSIONS].n >= control.max_sessions)
		rv = SESSION_COUNT;
	else
		rv = REAL(C_OpenSession, (UL, UL, P, P, P))(slot, flags, c, d, session);
	if (rv == OK) {
		note_slot(slot);
		count_sessions(1);
	}
	pthread_mutex_unlock(&mu);
	return after(rv);
}

static RV f_C_CloseSession(UL session)
{
	RV rv = begin(I_C_CloseSession, 1);
	if (rv != OK)
		return rv;
	pthread_mutex_lock(&mu);
	rv = REAL(C_CloseSession, (UL))(session);
	if (rv == OK)
		count_sessions(-1);
	pthread_mutex_unlock(&mu);
	forget_op(session);
	return after(rv);
}

static RV f_C_CloseAllSessions(UL slot)
{
	RV rv = begin(I_C_CloseAllSessions, 1);
	if (rv != OK)
		return rv;
	pthread_rwlock_unlock(&calls);
	pthread_rwlock_wrlock(&calls);
	pthread_mutex_lock(&mu);
	note_slot(slot);
	lose_sessions();
	pthread_mutex_unlock(&mu);
	return after(OK);
}

static RV f_C_GenerateKey(UL session, P mechanism, P template, UL n, P key)
{
	RV rv = begin(I_C_GenerateKey, 1);
	if (rv != OK)
		return rv;
	pthread_mutex_lock(&mu);
	RV refusal = control.no_token_keys;
	pthread_mutex_unlock(&mu);
	for (struct attribute *a = template; refusal && a < (struct attribute *)template + n; a++)
		if (a->type == TOKEN && a->len == 1 && *(BYTE *)a->value)
			return after(refusal);
	rv = REAL(C_GenerateKey, (UL, P, P, UL, P))(session, mechanism, template, n, key);
	if (rv == OK)
		out(key, 1);
	return after(rv);
}

static int is_zero(const BYTE *b, UL n)
{
	BYTE any = 0;
	while (n--)
		any |= b[n];
	return any == 0;
}

static RV f_C_EncryptInit(UL session, P mechanism, UL key)
{
	struct mechanism *m = mechanism, changed;
	struct gcm g;
	BYTE iv[16];
	RV rv = begin(I_C_EncryptInit, 1);
	if (rv != OK)
		return rv;
	note_gcm(session, m);
	int mode = get_op(session).mode;
	if (mode != IV_CALLER) {
		if (m->len != sizeof g)
			return after(MECHANISM_PARAM_INVALID);
		memcpy(&g, m->param, sizeof g);
		if (mode == IV_WRITTEN_BACK && (g.iv_len != 12 || !is_zero(g.iv, 12)))
			return after(MECHANISM_PARAM_INVALID);
		if (mode == IV_APPENDED && g.iv_len != 0)
			return after(MECHANISM_PARAM_INVALID);
		if (getrandom(iv, sizeof iv, 0) != sizeof iv)
			return after(GENERAL_ERROR);
		pthread_mutex_lock(&mu);
		/* The IV's memory outlives this call, the parameter's need not. */
		op_of(session)->caller_iv = g.iv;
		memcpy(op_of(session)->iv, iv, sizeof iv);
		pthread_mutex_unlock(&mu);
		g.iv = iv;
		g.iv_len = mode == IV_APPENDED ? 16 : 12;
		g.iv_bits = 8 * g.iv_len;
		changed = (struct mechanism){ m->type, &g, sizeof g };
		m = &changed;
	}
	return after(REAL(C_EncryptInit, (UL, P, UL))(session, m, in(key)));
}

typedef RV (*whole)(UL, P, UL, P, P);

/* Ends the operation of a session, as a failure of it must. */
static void discard(int fn, UL session, P data, UL len)
{
	UL room = len + 64;
	BYTE *nowhere = malloc(room);
	pthread_rwlock_rdlock(&calls);
	if (nowhere)
		((whole)real->fn[fn])(session, data, len, nowhere, &room);
	pthread_rwlock_unlock(&calls);
	free(nowhere);
}

static void tag_first(BYTE *b, UL n)
{
	BYTE tag[TAG_SIZE];
	memcpy(tag, b + n - TAG_SIZE, TAG_SIZE);
	memmove(b + TAG_SIZE, b, n - TAG_SIZE);
	memcpy(b, tag, TAG_SIZE);
}

static void tag_last(BYTE *b, UL n)
{
	BYTE tag[TAG_SIZE];
	memcpy(tag, b, TAG_SIZE);
	memmove(b, b + TAG_SIZE, n - TAG_SIZE);
	memcpy(b + n - TAG_SIZE, tag, TAG_SIZE);
}

static RV f_C_Encrypt(UL session, P data, UL len, P to, P to_len)
{
	UL *room = to_len, extra;
	RV rv = begin(I_C_Encrypt, to != NULL);
	if (rv != OK) {
		discard(I_C_Encrypt, session, data, len);
		return rv;
	}
	struct op o = get_op(session);
	extra = o.mode == IV_APPENDED ? 16 : 0;
	if (to && *room < extra)
		return after(BUFFER_TOO_SMALL);
	UL n = to ? *room - extra : 0;
	rv = REAL(C_Encrypt, (UL, P, UL, P, P))(session, data, len, to, &n);
	*room = n + extra;
	if (rv != OK || !to)
		return after(rv);
	if (o.mode == IV_WRITTEN_BACK)
		memcpy(o.caller_iv, o.iv, 12);
	if (o.tag_before)
		tag_first(to, n);
	memcpy((BYTE *)to + n, o.iv, extra);
	return after(OK);
}

static RV f_C_Decrypt(UL session, P data, UL len, P to, P to_len)
{
	RV rv = begin(I_C_Decrypt, to != NULL);
	if (rv != OK) {
		discard(I_C_Decrypt, session, data, len);
		return rv;
	}
	struct op o = get_op(session);
	BYTE *turned = NULL;
	if (o.tag_before && len >= TAG_SIZE) {
		turned = malloc(len);
		if (!turned)
			return after(HOST_MEMORY);
		memcpy(turned, data, len);
		tag_last(turned, len);
	}
	rv = REAL(C_Decrypt, (UL, P, UL, P, P))(session, turned ? turned : data, len, to, to_len);
	free(turned);
	pthread_mutex_lock(&mu);
	if (to && rv != OK && rv != BUFFER_TOO_SMALL && control.badtag)
		rv = control.badtag;
	pthread_mutex_unlock(&mu);
	return after(rv);
}

/* Loads the real module and maps the counts, once; the caller holds mu. */
static RV load(void)
{
	char path[PATH_MAX];
	Dl_info info;
	RV (*list)(P);
	if (real)
		return OK;
	if (!dladdr((P)names, &info) || strlen(info.dli_fname) >= sizeof self)
		return GENERAL_ERROR;
	strcpy(self, info.dli_fname);
	beside(path, "counts");
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, COUNTS * sizeof *counts) != 0)
		return GENERAL_ERROR;
	counts = mmap(NULL, COUNTS * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (counts == MAP_FAILED)
		return GENERAL_ERROR;
	for (int i = 0; i < FUNCTION_COUNT; i++)
		strcpy(counts[i].name, names[i]);
	strcpy(counts[OPEN_SESSIONS].name, "open-sessions");
	strcpy(counts[PEAK_SESSIONS].name, "peak-sessions");
	strcpy(counts[HANGING_CALLS].name, "hanging-calls");
	beside(path, "real");
	P library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		fprintf(stderr, "faultymodule: %s\n", dlerror());
		return GENERAL_ERROR;
	}
	*(P *)&list = dlsym(library, "C_GetFunctionList");
	return list ? list(&real) : GENERAL_ERROR;
}

RV C_GetFunctionList(struct function_list **list)
{
	static const struct function_list functions = { { 2, 40 }, {
#define ENTRY(name, ...) (void (*)(void))f_##name,
		FUNCTIONS(ENTRY, ENTRY)
	} };
	pthread_mutex_lock(&mu);
	RV rv = load();
	pthread_mutex_unlock(&mu);
	own = functions;
	*list = &own;
	return rv;
}

static RV f_C_GetFunctionList(P list) { return C_GetFunctionList(list); }
