/*
 * A PKCS#11 module for tests and drills: it forwards every call to a real module
 * and, as a control file says, behaves like tokens of another make or like a sick
 * one. README.md says how to build and to command it.
 *
 * Here are its functions, except for those of gcm.c and mechanisms.c.
 */
#include <stdlib.h>
#include "faulty.h"

#define FORWARD(name, params, args, asks, in, output) \
	RV f_##name params \
	{ \
		struct call c_ = { .fn = I_##name, .only_asks = asks }; \
		RV rv = begin(&c_); \
		if (rv != OK) \
			return refuse(&c_, (UL)a, rv); \
		rv = in; \
		if (rv == OK) \
			rv = REAL(name, params) args; \
		if (rv == OK) \
			output; \
		return after(&c_, rv); \
	}
#define PLAIN(name, params, args) FORWARD(name, params, args, 0, OK, NONE)
#define SIZES(name, params, args, to) FORWARD(name, params, args, !to, OK, NONE)
#define TURNS(name, params, args, in, output) FORWARD(name, params, args, 0, in, output)
#define OWN(name, params)
FUNCTIONS(PLAIN, SIZES, TURNS, OWN)

/*
 * A failed call ends the operation of its session, so the real one is ended too.
 * PKCS#11 v2.40 has no other way than to finish it, be it in vain.
 */
RV refuse(const struct call *c, UL session, RV rv)
{
	BYTE nowhere[8192], nothing = 0;
	UL room = sizeof nowhere, again = sizeof nowhere;
	if (!real)
		return rv;
	pthread_rwlock_rdlock(&calls);
	switch (c->fn) {
	case I_C_Encrypt: case I_C_Decrypt: case I_C_Sign: case I_C_Digest:
	case I_C_SignRecover: case I_C_VerifyRecover:
		((RV(*)(UL, P, UL, P, P))real->fn[c->fn])(session, &nothing, 0, nowhere, &room);
		break;
	case I_C_EncryptUpdate: case I_C_EncryptFinal:
		REAL(C_EncryptFinal, (UL, P, P))(session, nowhere, &room);
		break;
	case I_C_DecryptUpdate: case I_C_DecryptFinal:
		/* SoftHSM2 never has room enough for the end of padded data of no length. */
		if (REAL(C_DecryptFinal, (UL, P, P))(session, nowhere, &room) == BUFFER_TOO_SMALL)
			REAL(C_Decrypt, (UL, P, UL, P, P))(session, &nothing, 0, nowhere, &again);
		break;
	case I_C_DigestUpdate: case I_C_DigestKey: case I_C_DigestFinal:
		REAL(C_DigestFinal, (UL, P, P))(session, nowhere, &room);
		break;
	case I_C_SignUpdate: case I_C_SignFinal:
		REAL(C_SignFinal, (UL, P, P))(session, nowhere, &room);
		break;
	case I_C_Verify:
		REAL(C_Verify, (UL, P, UL, P, UL))(session, &nothing, 0, &nothing, 1);
		break;
	case I_C_VerifyUpdate: case I_C_VerifyFinal:
		REAL(C_VerifyFinal, (UL, P, UL))(session, &nothing, 1);
		break;
	}
	pthread_rwlock_unlock(&calls);
	return rv;
}

RV f_C_Initialize(P a)
{
	struct call c = { .fn = I_C_Initialize };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = take_parameters(a);
	if (rv != OK)
		return after(&c, rv);
	struct initialize_args args = { 0 };
	if (a) {
		args = *(struct initialize_args *)a;
		args.reserved = NULL;
	}
	rv = REAL(C_Initialize, (P))(a ? &args : NULL);
	if (rv == OK)
		initialized();
	return after(&c, rv);
}

RV f_C_Finalize(P a)
{
	struct call c = { .fn = I_C_Finalize };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = REAL(C_Finalize, (P))(a);
	if (rv == OK) {
		pthread_mutex_lock(&mu);
		remove_all_sessions();
		pthread_mutex_unlock(&mu);
	}
	return after(&c, rv);
}

/* Whether the token, or its slot, is gone. */
static int is_gone(int how)
{
	pthread_mutex_lock(&mu);
	struct death d = death_now();
	pthread_mutex_unlock(&mu);
	return d.code && d.shows == how;
}

RV f_C_GetSlotList(BYTE present, P list, P n)
{
	struct call c = { .fn = I_C_GetSlotList };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = REAL(C_GetSlotList, (BYTE, P, P))(present, list, n);
	if (is_gone(SLOT_ABSENT) || (present && is_gone(TOKEN_ABSENT))) {
		*(UL *)n = 0;
		rv = OK;
	}
	for (UL i = 0; rv == OK && list && i < *(UL *)n; i++)
		slot_out((UL *)list + i);
	if (rv == OK)
		claim(c.fn, n);
	return after(&c, rv);
}

RV f_C_GetSlotInfo(UL slot, P info)
{
	struct call c = { .fn = I_C_GetSlotInfo };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = slot_in(&slot);
	if (rv == OK)
		rv = REAL(C_GetSlotInfo, (UL, P))(slot, info);
	if (rv == OK && is_gone(TOKEN_ABSENT))
		((struct slot_info *)info)->flags &= ~(UL)TOKEN_PRESENT;
	return after(&c, rv);
}

RV f_C_GetTokenInfo(UL slot, P info)
{
	struct call c = { .fn = I_C_GetTokenInfo };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = slot_in(&slot);
	if (rv == OK)
		rv = REAL(C_GetTokenInfo, (UL, P))(slot, info);
	if (rv != OK)
		return after(&c, rv);
	pthread_mutex_lock(&mu);
	if (control.max_sessions)
		((struct token_info *)info)->max_sessions = control.max_sessions;
	((struct token_info *)info)->flags |= control.token_flags;
	if (control.max_pin) {
		((struct token_info *)info)->min_pin = control.min_pin;
		((struct token_info *)info)->max_pin = control.max_pin;
	}
	show_identity(info);
	pthread_mutex_unlock(&mu);
	return after(&c, OK);
}

RV f_C_OpenSession(UL slot, UL flags, P d, P e, P session)
{
	struct call c = { .fn = I_C_OpenSession };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = slot_in(&slot);
	/* Held throughout, so that the number of sessions is exact. */
	pthread_mutex_lock(&mu);
	if (control.rw_only && !(flags & RW_SESSION))
		rv = ARGUMENTS_BAD;
	else if (control.max_sessions && open_sessions() >= control.max_sessions)
		rv = SESSION_COUNT;
	if (rv == OK)
		rv = REAL(C_OpenSession, (UL, UL, P, P, P))(slot, flags, d, e, session);
	if (rv == OK)
		add_session(*(UL *)session, slot);
	pthread_mutex_unlock(&mu);
	return after(&c, rv);
}

RV f_C_CloseSession(UL session)
{
	struct call c = { .fn = I_C_CloseSession };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	pthread_mutex_lock(&mu);
	rv = REAL(C_CloseSession, (UL))(session);
	if (rv == OK)
		remove_session(session);
	pthread_mutex_unlock(&mu);
	return after(&c, rv);
}

RV f_C_CloseAllSessions(UL slot)
{
	struct call c = { .fn = I_C_CloseAllSessions };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = slot_in(&slot);
	pthread_mutex_lock(&mu);
	if (rv == OK)
		rv = REAL(C_CloseAllSessions, (UL))(slot);
	if (rv == OK)
		remove_sessions(slot);
	pthread_mutex_unlock(&mu);
	return after(&c, rv);
}

RV f_C_GenerateKey(UL session, P mechanism, P template, UL n, P key)
{
	struct call c = { .fn = I_C_GenerateKey };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	pthread_mutex_lock(&mu);
	RV refusal = control.no_token_keys;
	pthread_mutex_unlock(&mu);
	for (struct attribute *a = template; refusal && a < (struct attribute *)template + n; a++)
		if (a->type == TOKEN && a->len == 1 && *(BYTE *)a->value)
			return after(&c, refusal);
	rv = begins(mechanism) ?: template_trouble(template, n);
	if (rv == OK)
		rv = REAL(C_GenerateKey, (UL, P, P, UL, P))(session, mechanism, template, n, key);
	if (rv == OK)
		out(key, 1);
	return after(&c, rv);
}

__attribute__((visibility("default"))) RV C_GetFunctionList(const struct function_list **list)
{
	static const struct function_list functions = { { 2, 40 }, {
#define ENTRY(name, ...) (void (*)(void))f_##name,
		FUNCTIONS(ENTRY, ENTRY, ENTRY, ENTRY)
	} };
	if (!list)
		return ARGUMENTS_BAD;
	*list = &functions;
	RV rv = load();
	return rv == OK ? function_list_trouble() : rv;
}

RV f_C_GetFunctionList(P list) { return C_GetFunctionList(list); }
