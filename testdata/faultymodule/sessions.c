/* The open sessions of the real module, in a table by handle. */
#include <stdlib.h>
#include <string.h>
#include "faulty.h"

enum { BUCKETS = 256 };
static struct session *table[BUCKETS]; /* guarded by mu */
static UL open_now;                    /* guarded by mu */

UL open_sessions(void) { return open_now; }

struct session *session_of(UL handle)
{
	struct session *s = table[handle % BUCKETS];
	while (s && s->handle != handle)
		s = s->next;
	return s;
}

void add_session(UL handle, UL slot)
{
	struct session *s = calloc(1, sizeof *s);
	if (!s)
		abort();
	s->handle = handle;
	s->slot = slot;
	s->next = table[handle % BUCKETS];
	table[handle % BUCKETS] = s;
	open_now++;
	count(OPEN_SESSIONS, 1);
	count_peak(PEAK_SESSIONS, open_now);
}

/* Frees the session that at points to and has it point to the next. */
static void unlink_session(struct session **at)
{
	struct session *s = *at;
	*at = s->next;
	free(s);
	open_now--;
	count(OPEN_SESSIONS, -1);
}

void remove_session(UL handle)
{
	for (struct session **at = &table[handle % BUCKETS]; *at; at = &(*at)->next)
		if ((*at)->handle == handle) {
			unlink_session(at);
			return;
		}
}

void remove_sessions(UL slot)
{
	for (int i = 0; i < BUCKETS; i++)
		for (struct session **at = &table[i]; *at;)
			if ((*at)->slot == slot)
				unlink_session(at);
			else
				at = &(*at)->next;
}

void remove_all_sessions(void)
{
	for (int i = 0; i < BUCKETS; i++)
		while (table[i])
			unlink_session(&table[i]);
}

void lose_sessions(void)
{
	for (int i = 0; i < BUCKETS; i++)
		while (table[i]) {
			UL slot = table[i]->slot;
			REAL(C_CloseAllSessions, (UL))(slot);
			remove_sessions(slot);
		}
}

/* Of several sessions of one token all but the first find it done. */
void log_out(void)
{
	for (int i = 0; i < BUCKETS; i++)
		for (struct session *s = table[i]; s; s = s->next)
			REAL(C_Logout, (UL))(s->handle);
}
