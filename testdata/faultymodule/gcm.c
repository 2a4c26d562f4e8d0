/* AES-GCM by the conventions of other makes, and outputs that are corrupted. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "faulty.h"

static struct op get_op(UL session)
{
	pthread_mutex_lock(&mu);
	struct session *s = session_of(session);
	struct op o = { 0 };
	if (s)
		o = s->op;
	pthread_mutex_unlock(&mu);
	return o;
}

static void set_op(UL session, const struct op *o)
{
	pthread_mutex_lock(&mu);
	struct session *s = session_of(session);
	if (s)
		s->op = *o;
	pthread_mutex_unlock(&mu);
}

/* What the operation that a mechanism begins is like. */
static struct op op_for(const struct mechanism *m)
{
	struct op o = { 0 };
	if (!m || m->type != AES_GCM || !m->param || m->len != sizeof(struct gcm))
		return o;
	pthread_mutex_lock(&mu);
	o.gcm = 1;
	o.tag_len = ((struct gcm *)m->param)->tag_bits / 8;
	o.tag_before = control.tag_before;
	o.mode = control.iv;
	pthread_mutex_unlock(&mu);
	return o;
}

void note_gcm(UL session, const struct mechanism *m)
{
	struct op o = op_for(m);
	set_op(session, &o);
}

static int is_zero(const BYTE *b, UL n)
{
	BYTE any = 0;
	while (n--)
		any |= b[n];
	return any == 0;
}

/* Replaces the IV of g as the mode wants. */
static RV make_iv(struct op *o, struct gcm *g)
{
	if (o->mode == IV_WRITTEN_BACK && (g->iv_len != 12 || !is_zero(g->iv, 12)))
		return MECHANISM_PARAM_INVALID;
	if (o->mode == IV_APPENDED && g->iv_len != 0)
		return MECHANISM_PARAM_INVALID;
	if (getrandom(o->iv, sizeof o->iv, 0) != sizeof o->iv)
		return GENERAL_ERROR;
	/* The IV's memory outlives this call, the parameter's need not. */
	o->caller_iv = g->iv;
	g->iv = o->iv;
	g->iv_len = o->mode == IV_APPENDED ? 16 : 12;
	g->iv_bits = 8 * g->iv_len;
	return OK;
}

RV f_C_EncryptInit(UL session, P mechanism, UL key)
{
	struct call c = { .fn = I_C_EncryptInit };
	struct mechanism *m = mechanism, changed;
	struct gcm g;
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	struct op o = op_for(m);
	if (o.mode != IV_CALLER) {
		g = *(struct gcm *)m->param;
		rv = make_iv(&o, &g);
		changed = (struct mechanism){ m->type, &g, sizeof g };
		m = &changed;
	}
	if (rv == OK)
		rv = begins(m) ?: key_in(&key) ?: object_trouble(c.fn, session, key);
	if (rv == OK)
		rv = REAL(C_EncryptInit, (UL, P, UL))(session, m, key);
	if (rv == OK)
		set_op(session, &o);
	return after(&c, rv);
}

static int corrupts(int kind, int fn)
{
	pthread_mutex_lock(&mu);
	int yes = due(kind, fn);
	pthread_mutex_unlock(&mu);
	return yes;
}

/* Flips a bit of b if a rule says so. */
static void corrupt(int kind, int fn, BYTE *b, UL n)
{
	if (n == 0 || !corrupts(kind, fn))
		return;
	pthread_mutex_lock(&mu);
	UL bit = random_below(8 * n);
	pthread_mutex_unlock(&mu);
	b[bit / 8] ^= (BYTE)(1 << bit % 8);
	count(CORRUPTED_OUTPUTS, 1);
}

static int tag_first(BYTE *b, UL n, UL tag_len)
{
	BYTE tag[32];
	if (tag_len > sizeof tag || tag_len > n)
		return 0;
	memcpy(tag, b + n - tag_len, tag_len);
	memmove(b + tag_len, b, n - tag_len);
	memcpy(b, tag, tag_len);
	return 1;
}

RV f_C_Encrypt(UL session, P data, UL len, P to, P to_len)
{
	struct call c = { .fn = I_C_Encrypt, .only_asks = !to };
	UL *room = to_len;
	RV rv = begin(&c);
	if (rv != OK)
		return refuse(&c, session, rv);
	struct op o = get_op(session);
	UL extra = o.mode == IV_APPENDED ? 16 : 0;
	/* One byte is too little for any tag: the real module says how much it needs. */
	UL n = !to ? 0 : *room > extra ? *room - extra : extra ? 1 : *room;
	rv = REAL(C_Encrypt, (UL, P, UL, P, P))(session, data, len, to, &n);
	*room = n + extra;
	if (rv != OK || !to)
		return after(&c, rv);
	if (o.mode == IV_WRITTEN_BACK)
		memcpy(o.caller_iv, o.iv, 12);
	UL tag = o.gcm && o.tag_len <= n ? o.tag_len : 0;
	corrupt(CORRUPT_CIPHERTEXT, I_C_Encrypt, to, n - tag);
	corrupt(CORRUPT_TAG, I_C_Encrypt, (BYTE *)to + n - tag, tag);
	if (o.tag_before && !tag_first(to, n, tag))
		return after(&c, GENERAL_ERROR);
	memcpy((BYTE *)to + n, o.iv, extra);
	claim(c.fn, to_len);
	return after(&c, OK);
}

/* Returns a copy of data with the tag behind, NULL if there is no memory. */
static BYTE *tag_last(const BYTE *data, UL len, UL tag_len)
{
	BYTE *turned = malloc(len);
	if (!turned)
		return NULL;
	memcpy(turned, data + tag_len, len - tag_len);
	memcpy(turned + len - tag_len, data, tag_len);
	return turned;
}

static RV bad_tag(RV rv)
{
	pthread_mutex_lock(&mu);
	if (control.badtag)
		rv = control.badtag;
	pthread_mutex_unlock(&mu);
	return rv;
}

RV f_C_Decrypt(UL session, P data, UL len, P to, P to_len)
{
	struct call c = { .fn = I_C_Decrypt, .only_asks = !to };
	RV rv = begin(&c);
	if (rv != OK)
		return refuse(&c, session, rv);
	struct op o = get_op(session);
	BYTE *turned = NULL;
	if (o.tag_before && len >= o.tag_len && !(turned = tag_last(data, len, o.tag_len)))
		return after(&c, HOST_MEMORY);
	rv = REAL(C_Decrypt, (UL, P, UL, P, P))(session, turned ? turned : data, len, to, to_len);
	free(turned);
	if (to && rv != OK && rv != BUFFER_TOO_SMALL)
		rv = bad_tag(rv);
	if (to && rv == OK)
		corrupt(CORRUPT_PLAINTEXT, I_C_Decrypt, to, *(UL *)to_len);
	if (to && rv == OK)
		claim(c.fn, to_len);
	return after(&c, rv);
}
