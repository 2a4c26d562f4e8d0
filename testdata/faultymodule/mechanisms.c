/* What tokens of other makes do not do, or do otherwise, with keys. */
#include <stdlib.h>
#include <string.h>
#include "faulty.h"

static int is_in(const struct mechanisms *list, UL type)
{
	for (int i = 0; i < list->n; i++)
		if (list->types[i] == type)
			return 1;
	return 0;
}

RV hidden(UL mechanism)
{
	pthread_mutex_lock(&mu);
	int yes = is_in(&control.hidden, mechanism);
	pthread_mutex_unlock(&mu);
	return yes ? MECHANISM_INVALID : OK;
}

RV begins(const struct mechanism *m)
{
	return m ? hidden(m->type) : OK;
}

/* Takes the hidden mechanisms out of a list with room for more, and adds those listed besides. */
static UL relist(UL *list, UL n)
{
	UL kept = 0;
	pthread_mutex_lock(&mu);
	for (UL i = 0; i < n; i++)
		if (!is_in(&control.hidden, list[i]))
			list[kept++] = list[i];
	for (int i = 0; i < control.listed.n; i++)
		list[kept++] = control.listed.types[i];
	if (control.kwp)
		list[kept++] = WRAP_KWP;
	pthread_mutex_unlock(&mu);
	return kept;
}

RV f_C_GetMechanismList(UL slot, P list, P n)
{
	struct call c = { .fn = I_C_GetMechanismList };
	UL *all = NULL, have = 0;
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = slot_in(&slot);
	if (rv == OK)
		rv = REAL(C_GetMechanismList, (UL, P, P))(slot, NULL, &have);
	if (rv == OK && !(all = calloc(have + MAX_MECHANISMS + 1, sizeof *all)))
		rv = HOST_MEMORY;
	if (rv == OK)
		rv = REAL(C_GetMechanismList, (UL, P, P))(slot, all, &have);
	if (rv == OK) {
		have = relist(all, have);
		if (list && *(UL *)n < have)
			rv = BUFFER_TOO_SMALL;
		else if (list)
			memcpy(list, all, have * sizeof *all);
		*(UL *)n = have;
		claim(c.fn, n);
	}
	free(all);
	return after(&c, rv);
}

/* How a token wraps: by which mechanism of the real one, and how many bytes it adds. */
struct wrapping { struct mechanism real; UL extra; };

static RV wrapping_of(const struct mechanism *m, struct wrapping *w)
{
	*w = (struct wrapping){ *m, 0 };
	pthread_mutex_lock(&mu);
	if (m->type == WRAP_KWP && control.kwp)
		w->real.type = WRAP_PAD;
	else if (m->type == WRAP_PAD && control.pad_differs)
		w->extra = 8;
	pthread_mutex_unlock(&mu);
	return hidden(m->type);
}

RV f_C_WrapKey(UL session, P mechanism, UL by, UL key, P to, P to_len)
{
	struct call c = { .fn = I_C_WrapKey, .only_asks = !to };
	struct wrapping w;
	UL *room = to_len;
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = wrapping_of(mechanism, &w) ?: key_in(&by) ?: key_in(&key);
	UL n = !to ? 0 : *room > w.extra ? *room - w.extra : 0;
	if (rv == OK)
		rv = REAL(C_WrapKey, (UL, P, UL, UL, P, P))(session, &w.real, by, key, to, &n);
	if (rv == OK || rv == BUFFER_TOO_SMALL)
		*room = n + w.extra;
	if (rv == OK && to)
		memset((BYTE *)to + n, 8, w.extra);
	if (rv == OK)
		claim(c.fn, to_len);
	return after(&c, rv);
}

/* Whether the token refuses a template, from which it takes the attribute that it alone knows. */
static RV template_in(struct attribute *template, UL *n)
{
	int meant = 0, excused = 0;
	UL kept = 0;
	pthread_mutex_lock(&mu);
	struct unwrap u = control.unwrap_refused;
	pthread_mutex_unlock(&mu);
	for (UL i = 0; i < *n; i++) {
		struct attribute *a = template + i;
		if (a->type == KEY_TYPE && a->len == sizeof(UL) && *(UL *)a->value == u.key_type)
			meant = 1;
		if (u.code && u.has_unless && a->type == u.unless)
			excused = 1;
		else
			template[kept++] = *a;
	}
	*n = kept;
	return meant && !excused ? u.code : OK;
}

RV f_C_UnwrapKey(UL session, P mechanism, UL by, P wrapped, UL len, P template, UL n, P key)
{
	struct call c = { .fn = I_C_UnwrapKey };
	struct wrapping w;
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	struct attribute *own = malloc((n + 1) * sizeof *own);
	if (!own)
		return after(&c, HOST_MEMORY);
	memcpy(own, template, n * sizeof *own);
	rv = wrapping_of(mechanism, &w) ?: key_in(&by) ?: template_in(own, &n);
	if (rv == OK && (len < w.extra || (w.extra && ((BYTE *)wrapped)[len - 1] != 8)))
		rv = WRAPPED_KEY_INVALID;
	if (rv == OK)
		rv = REAL(C_UnwrapKey, (UL, P, UL, P, UL, P, UL, P))(session, &w.real, by, wrapped, len - w.extra, own, n, key);
	if (rv == OK)
		out(key, 1);
	free(own);
	return after(&c, rv);
}
