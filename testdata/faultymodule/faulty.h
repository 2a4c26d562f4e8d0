/* What the parts of the faulty module share; README.md says what it does. */
#ifndef FAULTY_H
#define FAULTY_H

#include <pthread.h>
#include "pkcs11.h"

/* Copies of the module in one process must not bind to each other's symbols. */
#pragma GCC visibility push(hidden)

/* parse.c: what a control file says. */

enum { LABEL_SIZE = 128, MAX_OBJECT_RULES = 8, MAX_TRANSLATIONS = 8 };

enum { FAIL, HANG, DELAY, CRASH, LEAK, CORRUPT_CIPHERTEXT, CORRUPT_TAG, CORRUPT_PLAINTEXT, FIND_NOTHING };
struct rule {
	int kind;
	BYTE fns[FUNCTION_COUNT]; /* whether it is for the function */
	RV code;                  /* FAIL */
	UL least, most;           /* DELAY: microseconds; LEAK: least bytes */
	double probability;
	long skip, left;          /* left < 0: no bound */
	UL until;                 /* milliseconds of the monotonic clock; 0: no bound */
};

/* Whether functions answer as those of a library that has lost its token. */
enum { LISTED, TOKEN_ABSENT, SLOT_ABSENT };
struct death { RV code; int shows, until_initialize; }; /* code OK: alive */

struct identity { char of[33], serial[17], label[33]; }; /* "": all; as it is */

/* Mechanisms, and the key type that C_UnwrapKey answers code to, unless its template has an attribute. */
enum { MAX_MECHANISMS = 16 };
struct mechanisms { UL types[MAX_MECHANISMS]; int n; };
struct unwrap { UL key_type, unless; RV code; int has_unless; }; /* code OK: none */
/* What functions answer of objects with a label. */
struct object_rule { BYTE fns[FUNCTION_COUNT]; char label[LABEL_SIZE]; RV code; };

/* An attribute that C_GetAttributeValue does not tell. */
struct untold { UL type; RV code; int abrupt; char label[LABEL_SIZE]; };

struct translation { RV from, to; };
struct refused_attribute { UL type; RV code; };

enum { IV_CALLER, IV_WRITTEN_BACK, IV_APPENDED };
enum { MAX_RULES = 64, MAX_IDENTITIES = 16, WHY_SIZE = 256 };

struct control {
	int malformed;
	int iv, tag_before, rw_only, kwp, pad_differs;
	struct mechanisms hidden, listed;
	struct unwrap unwrap_refused;
	RV badtag, no_token_keys, stale_key;
	UL token_flags, min_pin, max_pin;
	UL max_sessions, max_parallel, slot_offset, lose, logout, renumber;
	struct death dead;
	RV no_functions;
	int typed_pairs;
	struct untold untold;
	struct refused_attribute refused;
	char parameters[LABEL_SIZE], model[17];
	BYTE claimed[FUNCTION_COUNT];
	UL claims[FUNCTION_COUNT];
	struct translation translations[MAX_TRANSLATIONS];
	int translation_count;
	struct object_rule object_rules[MAX_OBJECT_RULES];
	int object_rule_count;
	struct identity identities[MAX_IDENTITIES];
	int identity_count;
	struct rule rules[MAX_RULES];
	int rule_count;
};

extern const char *const names[FUNCTION_COUNT];

/* Reads text, which it changes, into c, of which it keeps lose, logout and
 * renumber if text names others not. Returns 0 and what is wrong in why. */
int parse(struct control *c, char *text, char why[WHY_SIZE]);

int is_crypto(int fn);

/* control.c: the files, and what befalls a call. */

/* The records of NAME.counts: sets, which whoever replaces the control file
 * may increment, each function, then what is no function. */
struct count { char name[56]; unsigned long long n; };
enum {
	SETS, FIRST_FUNCTION, OPEN_SESSIONS = FIRST_FUNCTION + FUNCTION_COUNT, PEAK_SESSIONS,
	HANGING_CALLS, PEAK_PARALLEL, FAILED_CALLS, DELAYED_CALLS, CORRUPTED_OUTPUTS, COUNTS
};

struct call { int fn, only_asks, in_lane; };

extern struct control control;   /* guarded by mu */
extern struct function_list *real;
extern pthread_mutex_t mu;
extern pthread_rwlock_t calls;   /* each call holds it for reading, a loss of sessions for writing */
#define REAL(name, params) ((RV(*) params)real->fn[I_##name])

RV load(void);                           /* loads the real module, once */
RV function_list_trouble(void);          /* what C_GetFunctionList answers by the control file */
RV begin(struct call *c);                /* unless it returns an error, after() is due */
RV after(struct call *c, RV rv);
RV refuse(const struct call *c, UL session, RV rv); /* ends the operation that a failed call ends */
int due(int kind, int fn);               /* whether a rule strikes; the caller holds mu */
UL clock_now(void);                      /* milliseconds of the monotonic clock */
UL random_below(UL n);                   /* the caller holds mu */
void count(int record, long change);
void count_peak(int record, unsigned long long n);
struct death death_now(void);            /* the caller holds mu */
void initialized(void);                  /* what waits for C_Initialize takes effect */

/* Slots, objects and keys, from the application's numbering and back. */
RV slot_in(UL *slot);
void slot_out(P slot);
RV object_in(UL *handle);
RV key_in(UL *handle);
void out(P handles, UL n);
void show_identity(struct token_info *info);

/* sessions.c: the open sessions; the caller holds mu. */

struct op { BYTE *caller_iv; BYTE iv[16]; UL tag_len; int mode, tag_before, gcm; };
struct session { UL handle, slot; struct op op; struct session *next; };

UL open_sessions(void);
struct session *session_of(UL handle); /* NULL: there is none */
void add_session(UL handle, UL slot);
void remove_session(UL handle);
void remove_sessions(UL slot);
void remove_all_sessions(void);
void lose_sessions(void);              /* also holds calls for writing */
void log_out(void);                    /* also holds calls for writing */

/* mechanisms.c */

RV hidden(UL mechanism);      /* MECHANISM_INVALID if the module is not to know it */
RV begins(const struct mechanism *m); /* the same of what a function begins with */
/* answers.c */

RV object_trouble(int fn, UL session, UL object);
RV template_trouble(P template, UL n);
RV translated(RV rv);
RV take_parameters(struct initialize_args *args);
void claim(int fn, P n);
void blind(P n);                         /* has a search find nothing, if it is to */

/* gcm.c */

void note_gcm(UL session, const struct mechanism *m);

#define DECLARE(name, params, ...) RV f_##name params;
FUNCTIONS(DECLARE, DECLARE, DECLARE, DECLARE)

#pragma GCC visibility pop
#endif
