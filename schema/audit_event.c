#include "config.h"

#include "schema/audit_event.h"

#include <stddef.h>
#include <string.h>

static const char *const kind_names[AUDIT_KIND_COUNT] = {
	[AUDIT_OPEN] = "open",
	[AUDIT_CONNECTED] = "connected",
	[AUDIT_DENIED] = "denied",
	[AUDIT_ENDED] = "ended",
	[AUDIT_LOGIN_FAILED] = "login-failed",
	[AUDIT_POLICY] = "policy",
	[AUDIT_ADMIN] = "admin",
	[AUDIT_START] = "start",
	[AUDIT_STOP] = "stop",
	[AUDIT_FLOW] = "flow",
	[AUDIT_FLOW_ENDED] = "flow-ended",
	[AUDIT_CHECKPOINT] = "checkpoint",
	[AUDIT_FLOW_CHECKPOINT] = "flow-checkpoint",
	[AUDIT_THROTTLE] = "throttle",
	[AUDIT_LOOK] = "look",
};

const char *audit_kind_name(enum audit_kind kind)
{
	return (unsigned)kind < AUDIT_KIND_COUNT ? kind_names[kind] : "unknown";
}

enum audit_kind audit_kind_parse(const char *text)
{
	for (int i = 0; i < AUDIT_KIND_COUNT; i++)
		if (strcmp(kind_names[i], text) == 0)
			return (enum audit_kind)i;
	return AUDIT_KIND_COUNT;
}

bool audit_kind_tells_bytes(enum audit_kind kind)
{
	return kind == AUDIT_ENDED || kind == AUDIT_FLOW_ENDED || kind == AUDIT_CHECKPOINT ||
	       kind == AUDIT_FLOW_CHECKPOINT;
}

/* ---- events -------------------------------------------------------------------------------------------------- */

/* The texts of an event, in the order in which they travel. */
static const struct {
	size_t offset, size;
} texts[] = {
#define TEXT(field)                                                                                                    \
	{                                                                                                              \
		offsetof(struct audit_event, field), sizeof((struct audit_event *)NULL)->field                         \
	}
	TEXT(listener), TEXT(user), TEXT(method), TEXT(command), TEXT(name), TEXT(rule), TEXT(reason), TEXT(detail),
#undef TEXT
};

#define NTEXTS (sizeof texts / sizeof *texts)

void audit_put_event(struct wire_writer *w, const struct audit_event *e)
{
	wire_put_u8(w, (uint8_t)e->kind);
	wire_put_u64(w, e->session);
	wire_put_u64(w, (uint64_t)e->time_us);
	wire_put_u64(w, (uint64_t)e->duration_us);
	wire_put_endpoint(w, &e->client);
	wire_put_endpoint(w, &e->address);
	wire_put_u64(w, e->bytes_up);
	wire_put_u64(w, e->bytes_down);
	wire_put_u32(w, e->revision);
	for (size_t i = 0; i < NTEXTS; i++)
		wire_put_text(w, (const char *)e + texts[i].offset);
}

bool audit_get_event(struct wire_reader *r, struct audit_event *e)
{
	/* Not memset: the tail of a 16 KiB text nobody reads is not worth clearing for every record. */
	e->kind = (enum audit_kind)wire_get_u8(r);
	e->session = wire_get_u64(r);
	e->time_us = (int64_t)wire_get_u64(r);
	e->duration_us = (int64_t)wire_get_u64(r);
	wire_get_endpoint(r, &e->client);
	wire_get_endpoint(r, &e->address);
	e->bytes_up = wire_get_u64(r);
	e->bytes_down = wire_get_u64(r);
	e->revision = wire_get_u32(r);
	for (size_t i = 0; i < NTEXTS; i++)
		wire_get_text(r, (char *)e + texts[i].offset, texts[i].size);
	if ((unsigned)e->kind >= AUDIT_KIND_COUNT || e->time_us < 0 || e->duration_us < 0)
		r->bad = true;
	if (e->bytes_up > INT64_MAX || e->bytes_down > INT64_MAX)
		r->bad = true;
	return !r->bad;
}

/* ---- session ids --------------------------------------------------------------------------------------------- */

#define SESSION_DIGITS 13

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const char *audit_session_text(uint64_t session, char buf[AUDIT_SESSION_TEXT_MAX])
{
	char *out = buf;

	for (int i = 0; i < SESSION_DIGITS; i++) {
		if (i > 0 && i % 4 == 0)
			*out++ = '-';
		*out++ = digits[session >> (5 * (SESSION_DIGITS - 1 - i)) & 31];
	}
	*out = '\0';
	return buf;
}

/* 0..31, or -1. */
static int digit_value(char c)
{
	if (c >= 'a' && c <= 'z')
		c = (char)(c - 'a' + 'A');
	if (c == 'I' || c == 'L')
		c = '1';
	if (c == 'O')
		c = '0';
	const char *at = c == '\0' ? NULL : strchr(digits, c);

	return at == NULL ? -1 : (int)(at - digits);
}

uint64_t audit_session_parse(const char *text)
{
	uint64_t session = 0;
	int n = 0;

	for (; *text != '\0'; text++) {
		if (*text == '-')
			continue;
		int value = digit_value(*text);

		/* Thirteen digits are 65 bits: the first has four. */
		if (value < 0 || n == SESSION_DIGITS || (n == 0 && value > 15))
			return 0;
		session = session << 5 | (uint64_t)value;
		n++;
	}
	return n == SESSION_DIGITS ? session : 0;
}

/* ---- records ------------------------------------------------------------------------------------------------- */

void audit_put_record(struct wire_writer *w, uint64_t incarnation, uint64_t sequence, const struct audit_event *e)
{
	wire_put_u64(w, incarnation);
	wire_put_u64(w, sequence);
	audit_put_event(w, e);
}

bool audit_get_record(struct wire_reader *r, uint64_t *incarnation, uint64_t *sequence, struct audit_event *e)
{
	*incarnation = wire_get_u64(r);
	*sequence = wire_get_u64(r);
	if (*incarnation == 0 || *sequence == 0 || *sequence > INT64_MAX)
		r->bad = true;
	return audit_get_event(r, e) && wire_done(r);
}
