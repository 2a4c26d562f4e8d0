/* The files beside the module, and what befalls each call by the control file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "faulty.h"

struct function_list *real;
struct control control = { .stale_key = OBJECT_HANDLE_INVALID };
pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
pthread_rwlock_t calls = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

static char self[PATH_MAX - 16];
static struct count *counts;
static int counts_fd = -1;

/* What was seen of the control file, and when; guarded by mu. */
static struct stat seen;
static struct timespec looked;
static unsigned long long seen_sets;

/* The behaviours that have been carried out, or are in force since the last
 * C_Initialize, or until the next; guarded by mu. */
static UL lost, logged_out, numbering;
static struct death dead_until_initialize;
static struct identity identities[MAX_IDENTITIES];
static int identity_count;
static UL slot_offset;

/* The lanes of max-parallel, taken in the order of tickets; guarded by mu. */
static unsigned long long tickets, departed;
static pthread_cond_t departure = PTHREAD_COND_INITIALIZER;

static unsigned long long random_state;

static void beside(char *path, const char *suffix)
{
	snprintf(path, PATH_MAX, "%s.%s", self, suffix);
}

void count(int record, long change)
{
	__atomic_fetch_add(&counts[record].n, change, __ATOMIC_RELAXED);
}

void count_peak(int record, unsigned long long n)
{
	if (n > counts[record].n)
		counts[record].n = n;
}

/* Says what is wrong with the control file, so that it is not overlooked. */
static void complain(const char *why)
{
	char path[PATH_MAX];
	beside(path, "error");
	fprintf(stderr, "faultymodule: %s.control: %s\n", self, why);
	FILE *f = fopen(path, "w");
	if (!f)
		return;
	fprintf(f, "%s\n", why);
	fclose(f);
}

static void excuse(void)
{
	char path[PATH_MAX];
	beside(path, "error");
	unlink(path);
}

/* Returns the text of an open file, NULL if it cannot be read. */
static char *read_all(int fd)
{
	size_t size = 0, n = 0;
	char *text = NULL;
	for (;;) {
		if (n + 1 >= size) {
			char *more = realloc(text, size += 4096);
			if (!more)
				break;
			text = more;
		}
		ssize_t got = read(fd, text + n, size - n - 1);
		if (got < 0)
			break;
		if (got == 0) {
			text[n] = 0;
			return text;
		}
		n += (size_t)got;
	}
	free(text);
	return NULL;
}

/* Carries out what happens at once when the control file changes. */
static void adopt(const struct control *next)
{
	if (next->renumber != control.renumber)
		numbering++;
	control = *next;
	if (control.dead.until_initialize)
		dead_until_initialize = control.dead;
}

static void read_control(const char *path)
{
	char why[WHY_SIZE];
	static struct control next; /* too large for a stack; guarded by mu */
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	/* Of the file that was opened: it may be a newer one. */
	char *text = fd >= 0 && fstat(fd, &seen) == 0 ? read_all(fd) : NULL;
	next = control;
	int ok = text && parse(&next, text, why);
	if (!text)
		snprintf(why, sizeof why, "cannot be read: %.100s", strerror(errno));
	free(text);
	if (fd >= 0)
		close(fd);
	if (ok) {
		excuse();
		adopt(&next);
		return;
	}
	complain(why);
	control.malformed = 1;
	control.rule_count = 0;
}

static int is_seen(const struct stat *st)
{
	return st->st_ino == seen.st_ino && st->st_size == seen.st_size &&
		!memcmp(&st->st_mtim, &seen.st_mtim, sizeof st->st_mtim);
}

/*
 * Reads the control file if it has changed. It is looked at each time somebody
 * has said so in the counts, and else after a tick of the coarse clock: to look
 * at every call would cost more than the rest of the module. mu is held.
 */
static void look(void)
{
	char path[PATH_MAX];
	struct stat st;
	struct timespec now;
	unsigned long long sets = __atomic_load_n(&counts[SETS].n, __ATOMIC_ACQUIRE);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (sets == seen_sets && !memcmp(&now, &looked, sizeof now))
		return;
	seen_sets = sets;
	looked = now;
	beside(path, "control");
	if (stat(path, &st) != 0) {
		static struct control none;
		memset(&st, 0, sizeof st);
		if (errno == ENOENT && !is_seen(&st)) {
			char nothing[] = "", why[WHY_SIZE];
			none = control;
			parse(&none, nothing, why);
			adopt(&none);
			excuse();
			seen = st;
			return;
		}
	}
	if (!is_seen(&st))
		read_control(path);
}

UL random_below(UL n)
{
	if (!random_state && getrandom(&random_state, sizeof random_state, 0) < 0)
		abort();
	random_state |= !random_state;
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (UL)((random_state * 0x2545f4914f6cdd1dULL) >> 11) % n;
}

static int is_for(const struct rule *r, int kind, int fn)
{
	return r->kind == kind && r->fns[fn];
}

static struct rule *first_rule(int kind, int fn)
{
	for (int i = 0; i < control.rule_count; i++)
		if (is_for(&control.rules[i], kind, fn))
			return &control.rules[i];
	return NULL;
}

UL clock_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (UL)now.tv_sec * 1000 + (UL)now.tv_nsec / 1000000;
}

static int strikes(struct rule *r)
{
	if (r->left == 0 || (r->until && clock_now() >= r->until))
		return 0;
	if (r->skip > 0) {
		r->skip--;
		return 0;
	}
	if (r->probability < 1 && random_below(1UL << 40) >= r->probability * (1UL << 40))
		return 0;
	if (r->left > 0)
		r->left--;
	return 1;
}

/* The first rule that strikes. */
static struct rule *striking(int kind, int fn)
{
	for (int i = 0; i < control.rule_count; i++)
		if (is_for(&control.rules[i], kind, fn) && strikes(&control.rules[i]))
			return &control.rules[i];
	return NULL;
}

int due(int kind, int fn)
{
	return striking(kind, fn) != NULL;
}

/*
 * Brings control up to date and returns with mu held. A loss of sessions that it
 * demands is over then: a call that sees a new control file never runs on a
 * session of the old one, whichever call happens to close them.
 */
static void lock_control(void)
{
	pthread_mutex_lock(&mu);
	look();
	if (control.lose == lost && control.logout == logged_out)
		return;
	pthread_mutex_unlock(&mu);
	pthread_rwlock_wrlock(&calls); /* never while mu is held: calls under way take it */
	pthread_mutex_lock(&mu);
	if (control.logout != logged_out)
		log_out();
	logged_out = control.logout;
	if (control.lose != lost)
		lose_sessions();
	lost = control.lose;
	pthread_rwlock_unlock(&calls);
}

/* Lets go of mu for a while. */
static void pause_for(UL microseconds)
{
	struct timespec left = { (time_t)(microseconds / 1000000), (long)(microseconds % 1000000) * 1000 };
	pthread_mutex_unlock(&mu);
	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
	lock_control();
}

static void enter_lane(struct call *c)
{
	if (!is_crypto(c->fn))
		return;
	unsigned long long ticket = tickets++;
	while (control.max_parallel && ticket >= departed + control.max_parallel) {
		/* Not for long: the control file may raise the number. */
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 5000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&departure, &mu, &until);
		pthread_mutex_unlock(&mu);
		lock_control();
	}
	c->in_lane = 1;
	count_peak(PEAK_PARALLEL, ticket + 1 - departed);
}

static void leave_lane(struct call *c)
{
	if (!c->in_lane)
		return;
	pthread_mutex_lock(&mu);
	departed++;
	if (control.max_parallel)
		pthread_cond_broadcast(&departure);
	pthread_mutex_unlock(&mu);
}

static void hang(int fn)
{
	count(HANGING_CALLS, 1);
	while (first_rule(HANG, fn))
		pause_for(2000);
	count(HANGING_CALLS, -1);
}

/* All delays that strike, one after the other. */
static void delay(int fn)
{
	UL total = 0;
	for (int i = 0; i < control.rule_count; i++) {
		struct rule *r = &control.rules[i];
		if (is_for(r, DELAY, fn) && strikes(r))
			total += r->least + random_below(r->most - r->least + 1);
	}
	if (!total)
		return;
	count(DELAYED_CALLS, 1);
	pause_for(total);
}

/* Memory that the process really has, and that nothing frees. */
static void leak(UL bytes)
{
	static struct leaked { struct leaked *next; } *leaks; /* guarded by mu */
	struct leaked *l = malloc(sizeof *l + bytes);
	if (!l)
		return;
	memset(l, 0xa5, sizeof *l + bytes);
	l->next = leaks;
	leaks = l;
}

static void crash(void)
{
	volatile int *volatile nowhere = NULL;
	*nowhere = 1;
}

/* What the rules do to a call before it is made; mu is held, but not throughout. */
static RV trouble(struct call *c)
{
	struct rule *r;
	enter_lane(c);
	if (striking(HANG, c->fn))
		hang(c->fn);
	delay(c->fn);
	if ((r = striking(LEAK, c->fn)))
		leak(r->least);
	if (striking(CRASH, c->fn))
		crash();
	r = striking(FAIL, c->fn);
	return r ? r->code : OK;
}

struct death death_now(void)
{
	return control.dead.code ? control.dead : dead_until_initialize;
}

/* What a function answers by the state of the module; mu is held. */
static RV refusal(int fn)
{
	if (control.malformed)
		return ARGUMENTS_BAD;
	struct death d = death_now();
	switch (fn) {
	case I_C_Initialize: case I_C_Finalize: case I_C_GetInfo: case I_C_GetSlotList:
		return OK; /* they are about the library */
	case I_C_GetSlotInfo:
		return d.code && d.shows == SLOT_ABSENT ? SLOT_ID_INVALID : OK;
	case I_C_GetTokenInfo: case I_C_GetMechanismList: case I_C_GetMechanismInfo:
	case I_C_InitToken: case I_C_OpenSession: case I_C_CloseAllSessions:
		if (d.code && d.shows != LISTED)
			return d.shows == SLOT_ABSENT ? SLOT_ID_INVALID : TOKEN_NOT_PRESENT;
	}
	return d.code;
}

RV begin(struct call *c)
{
	RV rv = OK;
	if (!real)
		return GENERAL_ERROR; /* load has failed, and the application goes on */
	lock_control();
	count(FIRST_FUNCTION + c->fn, 1);
	if (!c->only_asks && control.rule_count + control.max_parallel)
		rv = trouble(c);
	if (rv == OK)
		rv = refusal(c->fn);
	pthread_mutex_unlock(&mu);
	if (rv == OK) {
		pthread_rwlock_rdlock(&calls);
		return OK;
	}
	count(FAILED_CALLS, 1);
	leave_lane(c);
	return rv;
}

RV after(struct call *c, RV rv)
{
	rv = translated(rv);
	pthread_rwlock_unlock(&calls);
	leave_lane(c);
	return rv;
}

void initialized(void)
{
	pthread_mutex_lock(&mu);
	memset(&dead_until_initialize, 0, sizeof dead_until_initialize);
	if (control.dead.until_initialize)
		dead_until_initialize = control.dead;
	memcpy(identities, control.identities, sizeof identities);
	identity_count = control.identity_count;
	slot_offset = control.slot_offset;
	pthread_mutex_unlock(&mu);
}

RV slot_in(UL *slot)
{
	if (*slot < slot_offset)
		return SLOT_ID_INVALID;
	*slot -= slot_offset;
	return OK;
}

void slot_out(P slot)
{
	*(UL *)slot += slot_offset;
}

/*
 * Handles of the application have the number of the numbering in their upper
 * half, which is never used twice: an old one never names another object.
 */
static RV handle_in(UL *handle, RV stale)
{
	if (*handle == 0)
		return OK;
	if (numbering && *handle >> 32 != numbering)
		return stale;
	*handle -= numbering << 32;
	return OK;
}

RV object_in(UL *handle)
{
	pthread_mutex_lock(&mu);
	RV rv = handle_in(handle, OBJECT_HANDLE_INVALID);
	pthread_mutex_unlock(&mu);
	return rv;
}

RV key_in(UL *handle)
{
	pthread_mutex_lock(&mu);
	RV rv = handle_in(handle, control.stale_key);
	pthread_mutex_unlock(&mu);
	return rv;
}

void out(P handles, UL n)
{
	pthread_mutex_lock(&mu);
	for (UL i = 0; i < n; i++)
		((UL *)handles)[i] += numbering << 32;
	pthread_mutex_unlock(&mu);
}

/* Fills a blank-padded field. */
static void field(BYTE *to, size_t size, const char *text)
{
	memset(to, ' ', size);
	memcpy(to, text, strnlen(text, size));
}

void show_identity(struct token_info *info)
{
	if (control.model[0])
		field(info->model, sizeof info->model, control.model);
	if (!(info->flags & TOKEN_INITIALIZED))
		return;
	for (int i = 0; i < identity_count; i++) {
		BYTE of[sizeof info->label];
		field(of, sizeof of, identities[i].of);
		if (identities[i].of[0] && memcmp(of, info->label, sizeof of))
			continue;
		field(info->serial, sizeof info->serial, identities[i].serial);
		if (identities[i].label[0])
			field(info->label, sizeof info->label, identities[i].label);
		return;
	}
}

/* Finds out which file this library was loaded from. */
static int find_self(void)
{
	Dl_info info;
	char folder[PATH_MAX] = "";
	if (!dladdr(&counts, &info))
		return 0;
	/* The program may change its folder later. */
	if (info.dli_fname[0] != '/' && !getcwd(folder, sizeof folder))
		return 0;
	int n = snprintf(self, sizeof self, "%s%s%s", folder, *folder ? "/" : "", info.dli_fname);
	return n > 0 && n < (int)sizeof self;
}

/*
 * Maps the counts. Whoever has them mapped holds a shared lock, so that what a
 * killed process has left among the counts of now is known to be wrong.
 */
static int map_counts(void)
{
	static const char *const others[] = {
		"open-sessions", "peak-sessions", "hanging-calls", "peak-parallel",
		"failed-calls", "delayed-calls", "corrupted-outputs"
	};
	char path[PATH_MAX];
	beside(path, "counts");
	counts_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (counts_fd < 0)
		return 0;
	int alone = flock(counts_fd, LOCK_EX | LOCK_NB) == 0;
	if (ftruncate(counts_fd, COUNTS * sizeof *counts) != 0)
		return 0;
	counts = mmap(NULL, COUNTS * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, counts_fd, 0);
	if (counts == MAP_FAILED)
		return 0;
	strcpy(counts[SETS].name, "sets");
	for (int i = 0; i < FUNCTION_COUNT; i++)
		strcpy(counts[FIRST_FUNCTION + i].name, names[i]);
	for (int i = OPEN_SESSIONS; i < COUNTS; i++)
		strcpy(counts[i].name, others[i - OPEN_SESSIONS]);
	if (alone)
		counts[OPEN_SESSIONS].n = counts[HANGING_CALLS].n = 0;
	return flock(counts_fd, LOCK_SH) == 0;
}

__attribute__((destructor)) static void unload(void)
{
	if (counts_fd >= 0)
		close(counts_fd);
}

static RV load_real(void)
{
	char path[PATH_MAX];
	RV (*list)(P);
	beside(path, "real");
	const char *elsewhere = getenv("HYOK_FAULTY_REAL");
	if (access(path, F_OK) != 0 && elsewhere && snprintf(path, sizeof path, "%s", elsewhere) >= PATH_MAX)
		return GENERAL_ERROR;
	P library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		fprintf(stderr, "faultymodule: cannot load the real module: %s; copy it to %s.real or name it in HYOK_FAULTY_REAL\n",
			dlerror(), self);
		return GENERAL_ERROR;
	}
	*(P *)&list = dlsym(library, "C_GetFunctionList");
	return list ? list(&real) : GENERAL_ERROR;
}

RV function_list_trouble(void)
{
	lock_control();
	RV rv = control.no_functions;
	pthread_mutex_unlock(&mu);
	return rv;
}

RV load(void)
{
	pthread_mutex_lock(&mu);
	RV rv = OK;
	if (!real && !counts && !(find_self() && map_counts())) {
		fprintf(stderr, "faultymodule: cannot make %s.counts: %s\n", self, strerror(errno));
		rv = GENERAL_ERROR;
		counts = NULL;
	}
	if (rv == OK && !real) {
		excuse(); /* what another process said; it will be said again if it holds */
		rv = load_real();
	}
	pthread_mutex_unlock(&mu);
	return rv;
}
