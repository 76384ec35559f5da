/* A SOCKS4 or 4a request on every prefix of the input: a verdict stands whatever follows, uses no more than is there, and
 * gives names that are canonical and a user id that lies within the request. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/worker/socks4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 8 bytes and two texts of 255 with their NUL. */
#define LONGEST (8 + 2 * 256)

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void check(const struct request *r, const struct socks4_user *user, const uint8_t *in, size_t used)
{
	struct name again;
	struct addr address;
	const char *why;

	must(r->command == POLICY_CONNECT || r->command == POLICY_BIND);
	must(user->text == in + 8 && user->text + user->len < in + used && user->text[user->len] == '\0');
	must(memchr(user->text, '\0', user->len) == NULL);
	if (!r->has_name) {
		must(r->address.family == ADDR_V4 || r->address.family == ADDR_V6);
		return;
	}
	must(r->name.len == strlen(r->name.text) && r->name.len > 0 && r->address.family == ADDR_NONE);
	must(name_canonical(r->name.text, r->name.len, &again, &address, &why) == NAME_IS_NAME);
	must(again.len == r->name.len && memcmp(again.text, r->name.text, again.len + 1u) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum front_result before = FRONT_MORE;
	size_t first_used = 0;

	for (size_t len = 0; len <= size && len <= LONGEST + 8; len++) {
		uint8_t *in = malloc(len + (len == 0)); /* exact, for the sanitizer */
		struct front_refusal why = {0};
		struct socks4_user user = {0};
		struct request request;
		size_t used = 0;

		if (in == NULL)
			abort();
		memcpy(in, data, len);
		enum front_result result = socks4_read_request(in, len, &used, &request, &user, &why);

		if (result == FRONT_DONE)
			check(&request, &user, in, used);
		if (result == FRONT_REFUSE) {
			must(why.detail != NULL && why.reason != REASON_NONE);
			must(why.name == NULL || (why.name >= in && why.name + why.name_len <= in + len));
		}
		free(in);
		must(result != FRONT_DONE || (used > 0 && used <= len));
		must(before == FRONT_MORE || result == before);
		must(before != FRONT_DONE || used == first_used);
		must(before != FRONT_MORE || result != FRONT_DONE || used == len);
		must(result != FRONT_MORE || len < LONGEST);
		if (before == FRONT_MORE && result == FRONT_DONE)
			first_used = used;
		before = result;
	}
	return 0;
}
