#include "config.h"

#include "schema/audit_json.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/text.h"

/* ---- events ---------------------------------------------------------------------------------------------------- */

/* A number of so many digits, and what follows; the byte behind both. */
static char *put_digits(char *at, int number, int digits, char behind)
{
	for (int i = digits; i-- > 0; number /= 10)
		at[i] = (char)('0' + number % 10);
	at[digits] = behind;
	return at + digits + 1;
}

/* Each session has one in its closing row: not by printf(3). */
const char *audit_time_text(int64_t time_us, char buf[AUDIT_TIME_TEXT_MAX])
{
	time_t seconds = (time_t)(time_us / 1000000);
	struct tm tm;
	char *at = buf;

	if (time_us < 0 || gmtime_r(&seconds, &tm) == NULL || tm.tm_year > 8099) {
		snprintf(buf, AUDIT_TIME_TEXT_MAX, "-");
		return buf;
	}
	at = put_digits(at, tm.tm_year + 1900, 4, '-');
	at = put_digits(at, tm.tm_mon + 1, 2, '-');
	at = put_digits(at, tm.tm_mday, 2, 'T');
	at = put_digits(at, tm.tm_hour, 2, ':');
	at = put_digits(at, tm.tm_min, 2, ':');
	at = put_digits(at, tm.tm_sec, 2, '.');
	at = put_digits(at, (int)(time_us % 1000000), 6, 'Z');
	*at = '\0';
	return buf;
}

static void put_text(json_t *object, const char *key, const char *text)
{
	char safe[4 * AUDIT_TEXT_MAX + 8];

	if (*text != '\0')
		json_object_set_new(object, key, json_string(text_escape(text, strlen(text), safe, sizeof safe)));
}

static void put_number(json_t *object, const char *key, uint64_t value)
{
	if (value != 0)
		json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void put_endpoint(json_t *object, const char *key, const char *port_key, const struct endpoint *ep)
{
	char text[ADDR_TEXT_MAX];

	if (ep->addr.family != ADDR_NONE)
		json_object_set_new(object, key, json_string(addr_format(&ep->addr, text)));
	put_number(object, port_key, ep->port);
}

static void put_detail(json_t *object, const char *detail)
{
	/* Nested deeper than we ever write, or no JSON at all: shown as the text that it is. */
	json_t *value = json_loads(detail, JSON_REJECT_DUPLICATES, NULL);
	char safe[4 * AUDIT_DETAIL_MAX + 8];

	if (value == NULL)
		value = json_string(text_escape(detail, strlen(detail), safe, sizeof safe));
	json_object_set_new(object, "detail", value);
}

static const char *verdict_of(enum audit_kind kind)
{
	uint32_t bit = 1u << kind;

	return bit & AUDIT_KINDS_ALLOW ? "allow" : bit & AUDIT_KINDS_DENY ? "deny" : "";
}

json_t *audit_event_json(uint64_t id, const struct audit_event *e)
{
	json_t *object = json_object();
	char time[AUDIT_TIME_TEXT_MAX], session[AUDIT_SESSION_TEXT_MAX];

	if (object == NULL)
		return NULL;
	put_number(object, "id", id);
	put_text(object, "time", audit_time_text(e->time_us, time));
	put_text(object, "event", audit_kind_name(e->kind));
	put_text(object, "verdict", verdict_of(e->kind));
	if (e->session != 0)
		put_text(object, "session", audit_session_text(e->session, session));
	put_endpoint(object, "client", "client_port", &e->client);
	put_text(object, "listener", e->listener);
	put_text(object, "user", e->user);
	put_text(object, "method", e->method);
	put_text(object, "command", e->command);
	put_text(object, "name", e->name);
	put_endpoint(object, "address", "port", &e->address);
	put_text(object, "rule", e->rule);
	put_number(object, "revision", e->revision);
	put_text(object, "reason", e->reason);
	if (audit_kind_tells_bytes(e->kind)) {
		json_object_set_new(object, "bytes_up", json_integer((json_int_t)e->bytes_up));
		json_object_set_new(object, "bytes_down", json_integer((json_int_t)e->bytes_down));
		json_object_set_new(object, "duration_us", json_integer((json_int_t)e->duration_us));
	}
	if (e->detail[0] != '\0')
		put_detail(object, e->detail);
	return object;
}

/* ---- filters --------------------------------------------------------------------------------------------------- */

/* The reader of one key: 0 or -1 with *why; value has been checked to be of the key's type. */
typedef int set_text(struct audit_filter *f, const char *text, struct err *why);
typedef int set_number(struct audit_filter *f, int64_t value, struct err *why);

static int set_user(struct audit_filter *f, const char *text, struct err *why)
{
	size_t len = strlen(text);

	if (len == 0 || len > AUDIT_TEXT_MAX)
		return err_set(why, "a user name has 1 to %d bytes", AUDIT_TEXT_MAX);
	memcpy(f->user, text, len + 1);
	return 0;
}

static int set_client(struct audit_filter *f, const char *text, struct err *why)
{
	bool host_bits;

	if (prefix_parse(text, &f->client, &host_bits))
		return 0;
	return err_set(why, host_bits ? "a prefix has no bits set behind its length: 192.0.2.0/24, not 192.0.2.1/24"
				      : "a client is an address or a prefix like 192.0.2.0/24");
}

/* One kind, or several with commas between them. */
static int set_event(struct audit_filter *f, const char *text, struct err *why)
{
	uint32_t kinds = 0;

	for (const char *at = text; at != NULL;) {
		const char *comma = strchr(at, ',');
		size_t len = strcspn(at, ",");
		char word[32] = "";

		if (len < sizeof word)
			memcpy(word, at, len);
		enum audit_kind kind = audit_kind_parse(word);

		if (kind == AUDIT_KIND_COUNT)
			return err_set(why, "an event is open, connected, denied, ended, login-failed, policy, admin, start, stop, "
					    "flow, flow-ended, checkpoint, flow-checkpoint, throttle or look");
		kinds |= 1u << kind;
		at = comma == NULL ? NULL : comma + 1;
	}
	f->kinds = f->kinds == 0 ? kinds : f->kinds & kinds;
	return f->kinds == 0 ? err_set(why, "no event of this kind has this verdict") : 0;
}

static int set_session(struct audit_filter *f, const char *text, struct err *why)
{
	f->session = audit_session_parse(text);
	return f->session == 0 ? err_set(why, "a session id looks like 0123-4567-89AB-C") : 0;
}

static int set_order(struct audit_filter *f, const char *text, struct err *why)
{
	f->oldest_first = strcmp(text, "oldest") == 0;
	if (!f->oldest_first && strcmp(text, "newest") != 0)
		return err_set(why, "an order is newest or oldest");
	return 0;
}

static int set_since(struct audit_filter *f, int64_t value, struct err *why)
{
	(void)why;
	f->since_us = value;
	return 0;
}

static int set_until(struct audit_filter *f, int64_t value, struct err *why)
{
	(void)why;
	f->until_us = value;
	return 0;
}

/* A text that must be there, of a length that a column can have. */
static int set_column(char out[AUDIT_TEXT_MAX + 1], const char *text, struct err *why)
{
	size_t len = strlen(text);

	if (len == 0 || len > AUDIT_TEXT_MAX)
		return err_set(why, "it has 1 to %d bytes", AUDIT_TEXT_MAX);
	memcpy(out, text, len + 1);
	return 0;
}

static int set_rule(struct audit_filter *f, const char *text, struct err *why)
{
	return set_column(f->rule, text, why);
}

static int set_group(struct audit_filter *f, const char *text, struct err *why)
{
	return set_column(f->group, text, why);
}

static int set_some_text(struct audit_filter *f, const char *text, struct err *why)
{
	return set_column(f->text, text, why);
}

static int set_country(struct audit_filter *f, const char *text, struct err *why)
{
	for (int i = 0; i < 2; i++)
		if (text[i] >= 'a' && text[i] <= 'z')
			f->country[i] = (char)(text[i] - 'a' + 'A');
		else if (text[i] >= 'A' && text[i] <= 'Z')
			f->country[i] = text[i];
		else
			return err_set(why, "a country is two letters (ISO 3166-1)");
	return text[2] == '\0' ? 0 : err_set(why, "a country is two letters (ISO 3166-1)");
}

static int set_revision(struct audit_filter *f, int64_t value, struct err *why)
{
	f->revision = (uint32_t)value;
	return value >= 1 && value <= UINT32_MAX ? 0 : err_set(why, "a revision is a number from 1 on");
}

static int set_port(struct audit_filter *f, int64_t value, struct err *why)
{
	f->port = (uint16_t)value;
	return value >= 1 && value <= UINT16_MAX ? 0 : err_set(why, "a port is from 1 to 65535");
}

static int set_after(struct audit_filter *f, int64_t value, struct err *why)
{
	(void)why;
	f->after = (uint64_t)value;
	f->oldest_first = true;
	return 0;
}

static int set_id(struct audit_filter *f, int64_t value, struct err *why)
{
	f->id = (uint64_t)value;
	return value >= 1 ? 0 : err_set(why, "the id of a row is a number from 1 on");
}

static int set_limit(struct audit_filter *f, int64_t value, struct err *why)
{
	(void)why;
	f->limit = (uint64_t)value;
	return 0;
}

static const struct filter_key {
	const char *key;
	set_text *text;
	set_number *number;
} filter_keys[] = {
	{"user", set_user, NULL},      {"client", set_client, NULL},
	{"to", audit_filter_to, NULL}, {"verdict", audit_filter_verdict, NULL},
	{"event", set_event, NULL},    {"session", set_session, NULL},
	{"order", set_order, NULL},    {"since_us", NULL, set_since},
	{"until_us", NULL, set_until}, {"limit", NULL, set_limit},
	{"rule", set_rule, NULL},      {"group", set_group, NULL},
	{"text", set_some_text, NULL}, {"revision", NULL, set_revision},
	{"port", NULL, set_port},      {"after", NULL, set_after},
	{"country", set_country, NULL}, {"id", NULL, set_id},
};

static int set_key(struct audit_filter *f, const struct filter_key *k, const json_t *value, struct err *why)
{
	if (k->text != NULL && json_is_string(value)) {
		const char *text = json_string_value(value);

		/* jansson allows NUL only where it was asked to; a text that hides one is refused all the same. */
		if (strlen(text) != json_string_length(value))
			return err_set(why, "a text holds a NUL");
		return k->text(f, text, why);
	}
	if (k->number != NULL && json_is_integer(value) && json_integer_value(value) >= 0)
		return k->number(f, json_integer_value(value), why);
	return err_set(why, k->text != NULL ? "it must be a text" : "it must be a whole number that is not negative");
}

static const struct filter_key *find_key(const char *key)
{
	for (size_t i = 0; i < sizeof filter_keys / sizeof *filter_keys; i++)
		if (strcmp(filter_keys[i].key, key) == 0)
			return &filter_keys[i];
	return NULL;
}

int audit_filter_json(const json_t *object, struct audit_filter *out, struct err *why)
{
	const char *key;
	json_t *value;

	*out = (struct audit_filter){0};
	if (!json_is_object(object))
		return err_set(why, "a filter is a JSON object");
	json_object_foreach((json_t *)object, key, value)
	{
		const struct filter_key *k = find_key(key);
		struct err reason;
		char safe[64];

		if (k == NULL)
			return err_set(why, "unknown filter \"%s\"", text_escape(key, strlen(key), safe, sizeof safe));
		if (set_key(out, k, value, &reason) != 0)
			return err_set(why, "filter \"%s\": %.400s", k->key, reason.text);
	}
	return 0;
}
