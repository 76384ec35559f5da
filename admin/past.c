#include "config.h"

#include "admin/past.h"

#include <string.h>
#include <time.h>

#include "admin/format.h"

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The bytes that were escaped (common/text.h); false if they do not fit. */
static bool unescape(const char *text, char *out, size_t size)
{
	size_t used = 0;

	for (; *text != '\0'; text++) {
		char c = *text;

		if (c == '\\' && text[1] == 'x' && hex(text[2]) >= 0 && hex(text[3]) >= 0) {
			c = (char)(hex(text[2]) << 4 | hex(text[3]));
			text += 3;
		}
		if (used + 1 >= size || c == '\0')
			return false;
		out[used++] = c;
	}
	out[used] = '\0';
	return true;
}

/* A member as the bytes it was; NULL where there is none. */
static const char *bytes_of(const json_t *object, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL && unescape(text, out, size) ? out : NULL;
}

static enum policy_method method_of(const json_t *row, const json_t *detail)
{
	char buf[FORMAT_TEXT_MAX], protection_buf[FORMAT_TEXT_MAX];
	const char *method = format_member(row, "method", buf), *protection = format_member(detail, "protection", protection_buf);

	if (strcmp(method, "password") == 0)
		return POLICY_METHOD_PASSWORD;
	if (strcmp(method, "socks4") == 0)
		return POLICY_METHOD_SOCKS4;
	if (strcmp(method, "gssapi") != 0)
		return POLICY_METHOD_NONE;
	return strcmp(protection, "integrity") == 0	    ? POLICY_METHOD_GSSAPI_INTEGRITY
	       : strcmp(protection, "confidentiality") == 0 ? POLICY_METHOD_GSSAPI_CONFIDENTIALITY
							    : POLICY_METHOD_GSSAPI;
}

static enum policy_command command_of(const json_t *row)
{
	char buf[FORMAT_TEXT_MAX];
	const char *command = format_member(row, "command", buf);

	return strcmp(command, "bind") == 0 ? POLICY_BIND : strcmp(command, "udp") == 0 ? POLICY_UDP : POLICY_CONNECT;
}

static void read_groups(struct past *p)
{
	const json_t *groups = json_object_get(p->detail, "groups"), *group;
	size_t i, used = 0;

	p->groups_cut = json_is_string(groups);
	p->folded = json_object_get(p->detail, "folded") != NULL;
	p->request.groups = p->groups;
	json_array_foreach(groups, i, group)
	{
		char *text = p->texts + used;

		if (p->request.ngroups == PAST_GROUPS_MAX || !json_is_string(group) ||
		    !unescape(json_string_value(group), text, sizeof p->texts - used))
			continue;
		p->groups[p->request.ngroups++] = text;
		used += strlen(text) + 1;
	}
}

static void add_address(struct past *p, const char *text, const char *rule)
{
	if (text != NULL && p->naddresses < PAST_ADDRESSES_MAX && addr_parse(text, &p->addresses[p->naddresses]))
		p->rules[p->naddresses++] = rule;
}

/* The addresses that the name had: all of the answer if the row tells them, else the candidates, else the one it names. */
static void read_addresses(struct past *p)
{
	const json_t *answers = json_object_get(p->detail, "answers"), *candidates = json_object_get(p->detail, "candidates"), *one;
	const json_t *aliases = json_object_get(p->detail, "aliases");
	struct addr unused;
	const char *why;
	size_t i;

	json_array_foreach(candidates, i, one) add_address(p, json_string_value(json_object_get(one, "address")),
							   json_string_value(json_object_get(one, "rule")));
	json_array_foreach(answers, i, one)
	{
		struct addr address;
		bool known = false;

		if (!json_is_string(one) || !addr_parse(json_string_value(one), &address))
			continue;
		for (size_t k = 0; k < p->naddresses; k++)
			known |= addr_equal(&p->addresses[k], &address);
		if (!known)
			add_address(p, json_string_value(one), NULL);
	}
	if (p->naddresses == 0 && p->request.name != NULL)
		add_address(p, json_string_value(json_object_get(p->row, "address")), NULL);
	json_array_foreach(aliases, i, one) if (json_is_string(one) && p->naliases < PAST_ALIASES_MAX &&
						name_canonical(json_string_value(one), strlen(json_string_value(one)),
							       &p->aliases[p->naliases], &unused, &why) == NAME_IS_NAME) p->naliases++;
}

int64_t past_time(const json_t *row)
{
	struct tm tm = {0};
	char buf[FORMAT_TEXT_MAX];

	return strptime(format_member(row, "time", buf), "%Y-%m-%dT%H:%M:%S", &tm) == NULL ? 0 : (int64_t)timegm(&tm);
}

const char *past_read(const json_t *row, struct past *p)
{
	char buf[FORMAT_TEXT_MAX], raw[AUDIT_TEXT_MAX + 1];
	const char *name = bytes_of(row, "name", raw, sizeof raw), *client = format_member(row, "client", buf), *why;
	struct policy_request *r = &p->request;

	p->row = row;
	p->detail = json_object_get(row, "detail");
	p->request = (struct policy_request){0};
	p->naddresses = p->naliases = 0;
	p->no_destination = false;
	p->seconds = past_time(row);
	if (*client == '\0' || !addr_parse(client, &r->client))
		return "names no client";
	r->user = bytes_of(row, "user", p->user, sizeof p->user);
	r->claimed_user = bytes_of(p->detail, "claimed_user", p->claimed, sizeof p->claimed);
	r->listener = bytes_of(row, "listener", p->listener, sizeof p->listener);
	r->method = method_of(row, p->detail);
	r->command = command_of(row);
	r->port = (uint16_t)format_number(row, "port");
	if (name != NULL && name_canonical(name, strlen(name), &p->name, &r->address, &why) != NAME_IS_NAME)
		return "is no decision of the policy: its name was refused before";
	if (name != NULL)
		r->name = &p->name;
	else if (!addr_parse(format_member(row, "address", buf), &r->address)) {
		/* A grant to associate names no destination yet. */
		p->no_destination = true;
		return "names no destination: its decisions are those of its flows";
	}
	read_addresses(p);
	read_groups(p);
	return NULL;
}
