/* The grammar of the control file: see README.md. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "faulty.h"

#define NAME(name, ...) #name,
const char *const names[FUNCTION_COUNT] = { FUNCTIONS(NAME, NAME, NAME, NAME) };

struct line {
	struct control *to;
	char *rest;   /* what is still to be read of it */
	char *why;
};

static int wrong(struct line *l, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(l->why, WHY_SIZE, format, args);
	va_end(args);
	return 0;
}

static char *word(struct line *l)
{
	return strtok_r(NULL, " \t\r", &l->rest);
}

static int number_of(struct line *l, const char *text, const char *what, UL *to)
{
	char *end;
	if (!text)
		return wrong(l, "%s is missing", what);
	*to = strtoul(text, &end, 0);
	if (*text < '0' || *text > '9' || *end)
		return wrong(l, "%s is no %s", text, what);
	return 1;
}

static int number(struct line *l, const char *what, UL *to)
{
	return number_of(l, word(l), what, to);
}

static const struct { const char *name; RV code; } codes[] = {
	{ "CKR_HOST_MEMORY", 0x02 }, { "CKR_SLOT_ID_INVALID", 0x03 }, { "CKR_GENERAL_ERROR", 0x05 },
	{ "CKR_FUNCTION_FAILED", 0x06 }, { "CKR_ARGUMENTS_BAD", 0x07 }, { "CKR_DATA_INVALID", 0x20 },
	{ "CKR_DEVICE_ERROR", 0x30 }, { "CKR_DEVICE_MEMORY", 0x31 }, { "CKR_DEVICE_REMOVED", 0x32 },
	{ "CKR_ENCRYPTED_DATA_INVALID", 0x40 }, { "CKR_FUNCTION_CANCELED", 0x50 },
	{ "CKR_FUNCTION_NOT_SUPPORTED", 0x54 }, { "CKR_KEY_HANDLE_INVALID", 0x60 },
	{ "CKR_KEY_FUNCTION_NOT_PERMITTED", 0x68 }, { "CKR_KEY_TYPE_INCONSISTENT", 0x63 },
	{ "CKR_ATTRIBUTE_SENSITIVE", 0x11 }, { "CKR_ATTRIBUTE_TYPE_INVALID", 0x12 }, { "CKR_ATTRIBUTE_VALUE_INVALID", 0x13 },
	{ "CKR_KEY_NOT_WRAPPABLE", 0x69 },
	{ "CKR_MECHANISM_INVALID", 0x70 }, { "CKR_OBJECT_HANDLE_INVALID", 0x82 },
	{ "CKR_OPERATION_ACTIVE", 0x90 }, { "CKR_OPERATION_NOT_INITIALIZED", 0x91 },
	{ "CKR_PIN_INCORRECT", 0xa0 }, { "CKR_PIN_EXPIRED", 0xa3 }, { "CKR_PIN_LOCKED", 0xa4 }, { "CKR_SESSION_CLOSED", 0xb0 },
	{ "CKR_SESSION_COUNT", 0xb1 }, { "CKR_SESSION_HANDLE_INVALID", 0xb3 },
	{ "CKR_SIGNATURE_INVALID", 0xc0 }, { "CKR_TEMPLATE_INCOMPLETE", 0xd0 }, { "CKR_TEMPLATE_INCONSISTENT", 0xd1 },
	{ "CKR_TOKEN_NOT_PRESENT", 0xe0 }, { "CKR_TOKEN_NOT_RECOGNIZED", 0xe1 },
	{ "CKR_USER_NOT_LOGGED_IN", 0x101 }, { "CKR_DOMAIN_PARAMS_INVALID", 0x130 }, { "CKR_CRYPTOKI_NOT_INITIALIZED", 0x190 },
};

static int code_of(struct line *l, const char *text, RV *to)
{
	for (size_t i = 0; text && i < sizeof codes / sizeof codes[0]; i++)
		if (strcmp(text, codes[i].name) == 0) {
			*to = codes[i].code;
			return 1;
		}
	if (!number_of(l, text, "CODE", to))
		return 0;
	return *to != OK || wrong(l, "CODE 0 is no failure");
}

static int code(struct line *l, RV *to)
{
	return code_of(l, word(l), to);
}

static int ended(struct line *l)
{
	char *extra = word(l);
	return !extra || wrong(l, "%s is not understood here", extra);
}

int is_crypto(int fn)
{
	switch (fn) {
	case I_C_EncryptInit: case I_C_DecryptInit: case I_C_DigestInit: case I_C_SignInit:
	case I_C_SignRecoverInit: case I_C_VerifyInit: case I_C_VerifyRecoverInit:
		return 0;
	}
	return fn > I_C_EncryptInit && fn <= I_C_GenerateRandom;
}

static int takes_session(int fn)
{
	return fn == I_C_InitPIN || fn == I_C_SetPIN || fn == I_C_CloseSession ||
		(fn > I_C_CloseAllSessions && fn != I_C_WaitForSlotEvent);
}

static int is_meant(int fn, const char *name)
{
	if (fn == I_C_GetFunctionList)
		return 0;
	return !strcmp(name, names[fn]) || !strcmp(name, "any") ||
		(!strcmp(name, "session") && takes_session(fn)) || (!strcmp(name, "crypto") && is_crypto(fn));
}

static int functions(struct line *l, BYTE *fns)
{
	char *list = word(l), *rest, *name;
	if (!list)
		return wrong(l, "FUNCTION is missing");
	for (name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
		int found = 0;
		for (int fn = 0; fn < FUNCTION_COUNT; fn++)
			if (is_meant(fn, name))
				found = fns[fn] = 1;
		if (!found)
			return wrong(l, "%s is no function that calls can be counted of", name);
	}
	return 1;
}

/* "skip M", "count N", "for MS" and "probability P", and that nothing follows. */
static int options(struct line *l, struct rule *r)
{
	char *option, *end;
	while ((option = word(l))) {
		char *value = word(l);
		UL n;
		if (!strcmp(option, "probability")) {
			r->probability = value ? strtod(value, &end) : -1;
			if (!value || *end || !(r->probability >= 0 && r->probability <= 1))
				return wrong(l, "probability is from 0 to 1");
		} else if (!strcmp(option, "for")) {
			if (!number_of(l, value, "number of milliseconds", &n))
				return 0;
			r->until = clock_now() + n;
		} else if (!strcmp(option, "count") && value && !strcmp(value, "-1")) {
			r->left = -1;
		} else if (!strcmp(option, "skip") || !strcmp(option, "count")) {
			if (!number_of(l, value, "number of calls", &n))
				return 0;
			*(*option == 's' ? &r->skip : &r->left) = (long)n;
		} else {
			return wrong(l, "%s is not understood here", option);
		}
	}
	return 1;
}

/* A new rule, or NULL if there are too many. */
static struct rule *new_rule(struct line *l, int kind)
{
	if (l->to->rule_count == MAX_RULES) {
		wrong(l, "more than %d rules", MAX_RULES);
		return NULL;
	}
	struct rule *r = &l->to->rules[l->to->rule_count++];
	memset(r, 0, sizeof *r);
	r->kind = kind;
	r->probability = 1;
	r->left = -1;
	return r;
}

static int read_fail(struct line *l)
{
	struct rule *r = new_rule(l, FAIL);
	return r && functions(l, r->fns) && code(l, &r->code) && options(l, r);
}

static int read_hang(struct line *l)
{
	struct rule *r = new_rule(l, HANG);
	return r && functions(l, r->fns) && options(l, r);
}

static int read_crash(struct line *l)
{
	struct rule *r = new_rule(l, CRASH);
	return r && functions(l, r->fns) && options(l, r);
}

static int read_leak(struct line *l)
{
	struct rule *r = new_rule(l, LEAK);
	return r && functions(l, r->fns) && number(l, "number of bytes", &r->least) && options(l, r);
}

/* Milliseconds, "A" or "A-B", as microseconds. */
static int range(struct line *l, UL *least, UL *most)
{
	char *text = word(l), *end = text;
	if (!text)
		return wrong(l, "MILLISECONDS is missing");
	double a = strtod(text, &end), b = a;
	if (end != text && *end == '-') {
		char *second = end + 1;
		b = strtod(second, &end);
		end = end == second ? second - 1 : end;
	}
	if (end == text || *end || !(a >= 0 && a <= b && b <= 1e9))
		return wrong(l, "%s is no MILLISECONDS, as 20 or 5-50", text);
	*least = (UL)(a * 1000);
	*most = (UL)(b * 1000);
	return 1;
}

static int read_delay(struct line *l)
{
	struct rule *r = new_rule(l, DELAY);
	return r && functions(l, r->fns) && range(l, &r->least, &r->most) && options(l, r);
}

static int read_corrupt(struct line *l)
{
	char *what = word(l);
	struct rule *r = new_rule(l, CORRUPT_CIPHERTEXT);
	if (!r)
		return 0;
	if (what && !strcmp(what, "tag"))
		r->kind = CORRUPT_TAG;
	else if (what && !strcmp(what, "plaintext"))
		r->kind = CORRUPT_PLAINTEXT;
	else if (!what || strcmp(what, "ciphertext"))
		return wrong(l, "ciphertext, tag or plaintext can be corrupted");
	r->fns[r->kind == CORRUPT_PLAINTEXT ? I_C_Decrypt : I_C_Encrypt] = 1;
	return options(l, r);
}

static int read_find_nothing(struct line *l)
{
	struct rule *r = new_rule(l, FIND_NOTHING);
	if (r)
		r->fns[I_C_FindObjects] = 1;
	return r && options(l, r);
}

static int read_dead(struct line *l)
{
	struct death *d = &l->to->dead;
	char *option;
	if (!code(l, &d->code))
		return 0;
	while ((option = word(l))) {
		if (!strcmp(option, "until-initialize"))
			d->until_initialize = 1;
		else if (!strcmp(option, "absent"))
			d->shows = TOKEN_ABSENT;
		else if (!strcmp(option, "slot-absent"))
			d->shows = SLOT_ABSENT;
		else
			return wrong(l, "%s is not understood here", option);
	}
	return 1;
}

/* A name of at most size-1 bytes in which %20 is a space, as in PKCS#11 URIs. */
static int name(struct line *l, const char *what, const char *text, char *to, size_t size)
{
	size_t n = 0;
	unsigned c;
	for (; *text; text++, to[n++] = (char)c) {
		c = (BYTE)*text;
		if (c == '%') {
			char hex[3] = { text[1], text[1] ? text[2] : 0, 0 }, *end;
			c = (unsigned)strtoul(hex, &end, 16);
			if (end != hex + 2 || c == 0)
				return wrong(l, "%% stands before two hexadecimal digits");
			text += 2;
		}
		if (n + 1 == size)
			return wrong(l, "%s is longer than %zu bytes", what, size - 1);
	}
	to[n] = 0;
	return 1;
}

static int read_identity(struct line *l)
{
	if (l->to->identity_count == MAX_IDENTITIES)
		return wrong(l, "more than %d identities", MAX_IDENTITIES);
	struct identity *i = &l->to->identities[l->to->identity_count++];
	memset(i, 0, sizeof *i);
	char *w = word(l);
	if (!w)
		return wrong(l, "SERIAL is missing");
	if (!name(l, "SERIAL", w, i->serial, sizeof i->serial))
		return 0;
	w = word(l);
	if (w && strcmp(w, "of")) {
		if (!name(l, "LABEL", w, i->label, sizeof i->label))
			return 0;
		w = word(l);
	}
	if (!w)
		return 1;
	if (strcmp(w, "of"))
		return wrong(l, "%s is not understood here", w);
	w = word(l);
	if (!w)
		return wrong(l, "the label of the token is missing after \"of\"");
	return name(l, "the label of the token", w, i->of, sizeof i->of) && ended(l);
}

static int read_renumber(struct line *l)
{
	if (!number(l, "N", &l->to->renumber))
		return 0;
	char *stale = word(l);
	return !stale || (code_of(l, stale, &l->to->stale_key) && ended(l));
}

/* One of two words, which is then what stands for it. */
static int choice(struct line *l, const char *zero, const char *one, int *to)
{
	char *w = word(l);
	if (w && zero && !strcmp(w, zero))
		*to = 0;
	else if (w && !strcmp(w, one))
		*to = 1;
	else
		return wrong(l, "%s%s%s is expected", zero ? zero : "", zero ? " or " : "", one);
	return ended(l);
}

/* Numbers of mechanisms, to the end of the line. */
static int mechanisms(struct line *l, struct mechanisms *to)
{
	char *w = word(l);
	if (!w)
		return wrong(l, "MECHANISM is missing");
	for (; w; w = word(l)) {
		if (to->n == MAX_MECHANISMS)
			return wrong(l, "more than %d mechanisms", MAX_MECHANISMS);
		if (!number_of(l, w, "MECHANISM", &to->types[to->n++]))
			return 0;
	}
	return 1;
}

static int read_hide(struct line *l) { return mechanisms(l, &l->to->hidden); }
static int read_list(struct line *l) { return mechanisms(l, &l->to->listed); }

static int read_wrap(struct line *l)
{
	int differs;
	if (!choice(l, "kwp", "pad-differs", &differs))
		return 0;
	*(differs ? &l->to->pad_differs : &l->to->kwp) = 1;
	return 1;
}

static int read_unwrap_refused(struct line *l)
{
	struct unwrap *u = &l->to->unwrap_refused;
	if (!number(l, "KEY-TYPE", &u->key_type) || !code(l, &u->code))
		return 0;
	char *w = word(l);
	if (!w)
		return 1;
	if (strcmp(w, "unless"))
		return wrong(l, "%s is not understood here", w);
	u->has_unless = 1;
	return number(l, "ATTRIBUTE", &u->unless) && ended(l);
}

static int read_iv(struct line *l)
{
	int appended;
	if (!choice(l, "written-back", "appended", &appended))
		return 0;
	l->to->iv = appended ? IV_APPENDED : IV_WRITTEN_BACK;
	return 1;
}

static int read_tag(struct line *l) { return choice(l, NULL, "before", &l->to->tag_before); }
static int read_readonly(struct line *l) { return choice(l, NULL, "refused", &l->to->rw_only); }
static int read_token_flags(struct line *l) { return number(l, "FLAGS", &l->to->token_flags) && ended(l); }

static int read_pin_lengths(struct line *l)
{
	return number(l, "MIN", &l->to->min_pin) && number(l, "MAX", &l->to->max_pin) && ended(l);
}

static int read_max_sessions(struct line *l) { return number(l, "N", &l->to->max_sessions) && ended(l); }
static int read_max_parallel(struct line *l) { return number(l, "N", &l->to->max_parallel) && ended(l); }
static int read_slot_offset(struct line *l) { return number(l, "N", &l->to->slot_offset) && ended(l); }
static int read_lose(struct line *l) { return number(l, "N", &l->to->lose) && ended(l); }
static int read_logout(struct line *l) { return number(l, "N", &l->to->logout) && ended(l); }
static int read_no_token_keys(struct line *l) { return code(l, &l->to->no_token_keys) && ended(l); }
static int read_badtag(struct line *l) { return code(l, &l->to->badtag) && ended(l); }

static int read_no_functions(struct line *l) { return code(l, &l->to->no_functions) && ended(l); }
static int read_pairs(struct line *l) { return choice(l, NULL, "typed", &l->to->typed_pairs); }

/* A label of an object, which may be missing. */
static int object_label(struct line *l, char to[LABEL_SIZE])
{
	char *w = word(l);
	return !w || name(l, "the label of an object", w, to, LABEL_SIZE);
}

static int read_untold(struct line *l)
{
	struct untold *u = &l->to->untold;
	char *rest = l->rest ? l->rest + strspn(l->rest, " \t") : NULL;
	if (rest && !strncmp(rest, "abruptly ", 9)) {
		word(l);
		u->abrupt = 1;
	}
	return number(l, "TYPE", &u->type) && code(l, &u->code) && object_label(l, u->label) && ended(l);
}

static int read_object(struct line *l)
{
	if (l->to->object_rule_count == MAX_OBJECT_RULES)
		return wrong(l, "more than %d objects", MAX_OBJECT_RULES);
	struct object_rule *r = &l->to->object_rules[l->to->object_rule_count++];
	memset(r, 0, sizeof *r);
	char *w = word(l);
	if (!w)
		return wrong(l, "the label of an object is missing");
	if (!name(l, "the label of an object", w, r->label, sizeof r->label) || !functions(l, r->fns))
		return 0;
	for (int fn = 0; fn < FUNCTION_COUNT; fn++)
		if (r->fns[fn] && fn != I_C_GetAttributeValue && fn != I_C_EncryptInit && fn != I_C_DecryptInit && fn != I_C_SignInit)
			return wrong(l, "%s is not told apart by object", names[fn]);
	return code(l, &r->code) && ended(l);
}

static int read_instead(struct line *l)
{
	if (l->to->translation_count == MAX_TRANSLATIONS)
		return wrong(l, "more than %d codes", MAX_TRANSLATIONS);
	struct translation *t = &l->to->translations[l->to->translation_count++];
	return code(l, &t->to) && code(l, &t->from) && ended(l);
}

static int read_claim(struct line *l)
{
	BYTE fns[FUNCTION_COUNT] = { 0 };
	UL n;
	if (!functions(l, fns) || !number(l, "N", &n))
		return 0;
	for (int fn = 0; fn < FUNCTION_COUNT; fn++)
		if (fns[fn]) {
			l->to->claimed[fn] = 1;
			l->to->claims[fn] = n;
		}
	return ended(l);
}

static int read_refuse_attribute(struct line *l)
{
	return number(l, "TYPE", &l->to->refused.type) && code(l, &l->to->refused.code) && ended(l);
}

static int read_parameters(struct line *l)
{
	char *w = word(l);
	if (!w)
		return wrong(l, "TEXT is missing");
	return name(l, "TEXT", w, l->to->parameters, sizeof l->to->parameters) && ended(l);
}

static int read_model(struct line *l)
{
	char *w = word(l);
	if (!w)
		return wrong(l, "TEXT is missing");
	return name(l, "TEXT", w, l->to->model, sizeof l->to->model) && ended(l);
}

static const struct { const char *name; int (*read)(struct line *); } behaviours[] = {
	{ "iv", read_iv }, { "tag", read_tag }, { "readonly-sessions", read_readonly },
	{ "token-flags", read_token_flags }, { "pin-lengths", read_pin_lengths },
	{ "max-sessions", read_max_sessions }, { "max-parallel", read_max_parallel },
	{ "no-token-keys", read_no_token_keys }, { "badtag", read_badtag },
	{ "fail", read_fail }, { "hang", read_hang }, { "delay", read_delay }, { "crash", read_crash },
	{ "find-nothing", read_find_nothing }, { "leak", read_leak }, { "corrupt", read_corrupt }, { "dead", read_dead },
	{ "lose-sessions", read_lose }, { "logout", read_logout }, { "renumber", read_renumber },
	{ "hide", read_hide }, { "list", read_list }, { "wrap", read_wrap },
	{ "unwrap-refused", read_unwrap_refused },
	{ "no-functions", read_no_functions }, { "pairs", read_pairs }, { "untold", read_untold },
	{ "object", read_object }, { "instead", read_instead }, { "claim", read_claim },
	{ "refuse-attribute", read_refuse_attribute }, { "parameters", read_parameters }, { "model", read_model },
	{ "identity", read_identity }, { "slot-offset", read_slot_offset },
};

static int read_line(struct line *l, char *text)
{
	char *behaviour = strtok_r(text, " \t\r", &l->rest);
	if (!behaviour || *behaviour == '#')
		return 1;
	for (size_t i = 0; i < sizeof behaviours / sizeof behaviours[0]; i++)
		if (!strcmp(behaviour, behaviours[i].name))
			return behaviours[i].read(l);
	return wrong(l, "there is no behaviour %s", behaviour);
}

int parse(struct control *c, char *text, char why[WHY_SIZE])
{
	UL lose = c->lose, logout = c->logout, renumber = c->renumber;
	RV stale = c->stale_key;
	memset(c, 0, sizeof *c);
	c->lose = lose;
	c->logout = logout;
	c->renumber = renumber;
	c->stale_key = stale ? stale : OBJECT_HANDLE_INVALID;
	for (int n = 1; text; n++) {
		char reason[WHY_SIZE], *next = strchr(text, '\n');
		struct line l = { c, NULL, reason };
		if (next)
			*next++ = 0;
		if (!read_line(&l, text)) {
			snprintf(why, WHY_SIZE, "line %d: %.200s", n, reason);
			return 0;
		}
		text = next;
	}
	return 1;
}

/* For who writes control files: 1 if text is one, else 0 and what is wrong. */
__attribute__((visibility("default"))) int faulty_check(const char *text, char why[WHY_SIZE])
{
	struct control *c = calloc(1, sizeof *c);
	char *copy = strdup(text);
	int ok = c && copy && parse(c, copy, why);
	if (!c || !copy)
		snprintf(why, WHY_SIZE, "no memory");
	free(copy);
	free(c);
	return ok;
}
