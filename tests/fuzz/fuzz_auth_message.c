/* Bodies of asks, answers and cancels: none breaks a reader, and what a reader takes is written back as it was. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "auth/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_equal(const struct wire_writer *w, const uint8_t *data, size_t size)
{
	if (w->overflow || w->len != size || memcmp(w->data, data, size) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t body[16384];
	struct auth_answer answer;
	struct auth_ask ask;
	struct wire_writer w;
	struct wire_reader r = wire_reader_on(data, size);
	uint64_t id;

	if (auth_get_ask(&r, &ask)) {
		w = wire_writer_on(body, sizeof body);
		auth_put_ask(&w, &ask);
		must_equal(&w, data, size);
	}
	r = wire_reader_on(data, size);
	if (auth_get_answer(&r, &answer)) {
		w = wire_writer_on(body, sizeof body);
		auth_put_answer(&w, &answer);
		must_equal(&w, data, size);
	}
	r = wire_reader_on(data, size);
	if (auth_get_cancel(&r, &id)) {
		w = wire_writer_on(body, sizeof body);
		auth_put_cancel(&w, id);
		must_equal(&w, data, size);
	}
	struct auth_command command;
	static uint8_t large[98304];
	static struct gss_answer gss_answer;
	struct gss_ask gss_ask;
	struct gss_step gss_step;

	r = wire_reader_on(data, size);
	if (gss_get_ask(&r, &gss_ask)) {
		w = wire_writer_on(large, sizeof large);
		gss_put_ask(&w, &gss_ask);
		must_equal(&w, data, size);
	}
	r = wire_reader_on(data, size);
	if (gss_get_step(&r, &gss_step)) {
		w = wire_writer_on(large, sizeof large);
		gss_put_step(&w, &gss_step);
		must_equal(&w, data, size);
	}
	r = wire_reader_on(data, size);
	if (gss_get_answer(&r, &gss_answer)) {
		w = wire_writer_on(large, sizeof large);
		gss_put_answer(&w, &gss_answer);
		must_equal(&w, data, size);
	}

	r = wire_reader_on(data, size);
	if (auth_get_command(&r, &command)) {
		uint8_t again[600];
		struct auth_command same;

		w = wire_writer_on(again, sizeof again);
		auth_put_command(&w, &command);
		r = wire_reader_on(again, w.len);
		if (w.overflow || !auth_get_command(&r, &same) || same.kind != command.kind || strcmp(same.user, command.user) != 0)
			abort();
	}
	struct throttle_news news;

	r = wire_reader_on(data, size);
	if (auth_get_news(&r, &news)) {
		w = wire_writer_on(body, sizeof body);
		auth_put_news(&w, &news);
		must_equal(&w, data, size);
	}
	static struct auth_asked_groups groups;

	r = wire_reader_on(data, size);
	if (auth_get_groups_ask(&r, &groups)) {
		w = wire_writer_on(body, sizeof body);
		auth_put_groups_ask(&w, &groups);
		must_equal(&w, data, size);
	}
	r = wire_reader_on(data, size);
	if (auth_get_groups_told(&r, &groups)) {
		w = wire_writer_on(body, sizeof body);
		auth_put_groups_told(&w, &groups);
		must_equal(&w, data, size);
	}
	auth_text_refused(data, size);
	return 0;
}
