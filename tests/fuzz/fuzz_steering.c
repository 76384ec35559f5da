/* What travels between gatewayctl, control and workers about live sessions.  The first byte chooses: a filter as a client of the
 * control socket writes it, which is held against facts; the question to a worker; its answer with rows.  None breaks the reader,
 * and what is taken is written back as it was. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/steering.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void filter(const uint8_t *data, size_t size)
{
	static struct audit_filter f;
	static struct name alias = {.len = 15, .text = "www.example.com"};
	const char *group = f.group;
	struct addr address = {.family = ADDR_V4, .bytes = {10, 1, 2, 3}};
	struct err why = {""};
	char *text = malloc(size + 1);

	must(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	if (steering_filter(text, &f, &why) != 0) {
		must(why.text[0] != '\0' && strlen(why.text) < sizeof why.text);
	} else {
		struct steering_facts nothing = {0}, all = {.session = f.session,
							    .client = &address,
							    .address = &address,
							    .user = f.user,
							    .rule = f.rule,
							    .name = f.to_name,
							    .listener = f.text,
							    .groups = &group,
							    .ngroups = 1,
							    .country = f.country,
							    .began_us = f.since_us == 0 ? 1 : f.since_us,
							    .aliases = &alias,
							    .naliases = 1,
							    .port = f.port,
							    .revision = f.revision};

		/* What is not known matches nothing that is asked for. */
		if (f.user[0] != '\0' || f.rule[0] != '\0' || f.port != 0 || f.session != 0 || f.revision != 0 || f.text[0] != '\0' ||
		    f.group[0] != '\0' || f.country[0] != '\0' || f.since_us != 0 || f.until_us != 0 || f.to != AUDIT_TO_ANY || f.client.addr.family != ADDR_NONE)
			must(!steering_matches(&f, &nothing));
		else
			must(steering_matches(&f, &nothing));
		bool in = (f.client.addr.family == ADDR_NONE || prefix_contains(&f.client, &address)) &&
			  (f.to != AUDIT_TO_PREFIX || prefix_contains(&f.to_prefix, &address)) && f.to != AUDIT_TO_BELOW &&
			  (f.until_us == 0 || all.began_us < f.until_us);

		must(!in || steering_matches(&f, &all));
	}
	free(text);
}

static void ask(const uint8_t *data, size_t size)
{
	static struct steering_ask a;
	static uint8_t body[8192];
	struct wire_reader r = wire_reader_on(data, size);
	struct wire_writer w = wire_writer_on(body, sizeof body);

	if (!steering_get_ask(&r, &a))
		return;
	steering_put_ask(&w, &a);
	must(!w.overflow && w.len == size && memcmp(body, data, size) == 0);
}

static void answer(const uint8_t *data, size_t size)
{
	static struct steering_row row;
	static uint8_t body[65536];
	struct wire_reader r = wire_reader_on(data, size);
	struct steering_answer a;

	if (!steering_get_answer(&r, &a))
		return;
	for (unsigned i = 0; i < a.rows; i++) {
		struct wire_writer w = wire_writer_on(body, sizeof body);
		const uint8_t *from = r.at;

		if (!steering_get_row(&r, &row))
			return;
		steering_put_row(&w, &row);
		must(!w.overflow && w.len == (size_t)(r.at - from) && memcmp(body, from, w.len) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const kinds[])(const uint8_t *, size_t) = {filter, ask, answer};

	if (size > 0)
		kinds[data[0] % 3](data + 1, size - 1);
	return 0;
}
