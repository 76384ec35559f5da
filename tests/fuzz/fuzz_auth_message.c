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
	auth_text_refused(data, size);
	return 0;
}
