/* What the module says otherwise than the real one: of objects, counts and templates. */
#include <string.h>
#include "faulty.h"

/* Whether an object of the real module has a label; "" is that of each. */
static int has_label(UL session, UL object, const char *label)
{
	char text[LABEL_SIZE];
	struct attribute a = { LABEL, text, sizeof text };
	if (!*label)
		return 1;
	return REAL(C_GetAttributeValue, (UL, UL, P, UL))(session, object, &a, 1) == OK &&
		a.len == strlen(label) && !memcmp(text, label, a.len);
}

/* What a function answers of an object by the rules. */
RV object_trouble(int fn, UL session, UL object)
{
	pthread_mutex_lock(&mu);
	int n = control.object_rule_count;
	struct object_rule rules[MAX_OBJECT_RULES];
	memcpy(rules, control.object_rules, sizeof rules);
	pthread_mutex_unlock(&mu);
	for (int i = 0; i < n; i++)
		if (rules[i].fns[fn] && has_label(session, object, rules[i].label))
			return rules[i].code;
	return OK;
}

/* As PKCS#11 wants it, what is untold has no length, and all else its value; or, where
 * the rule says so, nothing is filled in behind it. */
RV f_C_GetAttributeValue(UL session, UL object, P template, UL n)
{
	struct call c = { .fn = I_C_GetAttributeValue };
	struct attribute *a = template;
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	rv = object_in(&object) ?: object_trouble(c.fn, session, object);
	if (rv != OK)
		return after(&c, rv);
	pthread_mutex_lock(&mu);
	struct untold untold = control.untold;
	pthread_mutex_unlock(&mu);
	int applies = untold.code && has_label(session, object, untold.label);
	RV answer = OK;
	for (UL i = 0; i < n && !(answer && untold.abrupt); i++) {
		if (applies && a[i].type == untold.type) {
			a[i].len = ~0UL;
			answer = untold.code;
			continue;
		}
		rv = REAL(C_GetAttributeValue, (UL, UL, P, UL))(session, object, &a[i], 1);
		if (rv != OK)
			answer = rv;
		claim(c.fn, &a[i].len);
	}
	return after(&c, answer);
}

/* A number that the module answers. */
void claim(int fn, P n)
{
	pthread_mutex_lock(&mu);
	if (control.claimed[fn])
		*(UL *)n = control.claims[fn];
	pthread_mutex_unlock(&mu);
}

void blind(P n)
{
	pthread_mutex_lock(&mu);
	if (due(FIND_NOTHING, I_C_FindObjects))
		*(UL *)n = 0;
	pthread_mutex_unlock(&mu);
}

RV translated(RV rv)
{
	if (rv == OK)
		return rv;
	pthread_mutex_lock(&mu);
	for (int i = 0; i < control.translation_count; i++)
		if (control.translations[i].from == rv) {
			rv = control.translations[i].to;
			break;
		}
	pthread_mutex_unlock(&mu);
	return rv;
}

static int has(const struct attribute *a, UL n, UL type)
{
	for (UL i = 0; i < n; i++)
		if (a[i].type == type)
			return 1;
	return 0;
}

/* What a function answers of a template for a new object. */
RV template_trouble(P template, UL n)
{
	pthread_mutex_lock(&mu);
	struct refused_attribute r = control.refused;
	pthread_mutex_unlock(&mu);
	return r.code && has(template, n, r.type) ? r.code : OK;
}

RV f_C_GenerateKeyPair(UL session, P mechanism, P public, UL public_n, P private, UL private_n, P public_key, P private_key)
{
	struct call c = { .fn = I_C_GenerateKeyPair };
	RV rv = begin(&c);
	if (rv != OK)
		return rv;
	pthread_mutex_lock(&mu);
	int typed = control.typed_pairs;
	pthread_mutex_unlock(&mu);
	if (typed && !(has(public, public_n, CLASS) && has(public, public_n, KEY_TYPE) && has(private, private_n, CLASS) && has(private, private_n, KEY_TYPE)))
		return after(&c, TEMPLATE_INCONSISTENT);
	rv = begins(mechanism) ?: template_trouble(public, public_n) ?: template_trouble(private, private_n);
	if (rv == OK)
		rv = REAL(C_GenerateKeyPair, (UL, P, P, UL, P, UL, P, P))(session, mechanism, public, public_n, private, private_n, public_key, private_key);
	if (rv == OK) {
		out(public_key, 1);
		out(private_key, 1);
	}
	return after(&c, rv);
}

/* The text in the reserved argument of C_Initialize, which the real module must not see. */
RV take_parameters(struct initialize_args *args)
{
	pthread_mutex_lock(&mu);
	const char *want = control.parameters;
	RV rv = OK;
	if (*want && (!args || !args->reserved || strcmp(args->reserved, want)))
		rv = ARGUMENTS_BAD;
	pthread_mutex_unlock(&mu);
	return rv;
}
