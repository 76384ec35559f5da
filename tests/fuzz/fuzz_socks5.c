/* What a client says first: the three readers on every prefix of the input.  What is done at one length needed more at each
 * shorter one, uses no more than is there, and gives names that are canonical. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/worker/socks5.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The longest message: 7 bytes around a name of 255, 3 around two texts of 255, 2 around 255 methods. */
#define LONGEST 513

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void check_request(const struct request *r)
{
	struct name again;
	struct addr address;
	const char *why;

	must(r->command == POLICY_CONNECT);
	if (!r->has_name) {
		must(r->address.family == ADDR_V4 || r->address.family == ADDR_V6);
		return;
	}
	must(r->name.len == strlen(r->name.text) && r->name.len > 0 && r->address.family == ADDR_NONE);
	must(name_canonical(r->name.text, r->name.len, &again, &address, &why) == NAME_IS_NAME);
	must(again.len == r->name.len && memcmp(again.text, r->name.text, again.len + 1u) == 0);
}

static enum front_result read_one(int reader, const uint8_t *in, size_t len, size_t *used)
{
	struct front_refusal why = {0};
	struct socks5_methods methods;
	struct socks5_login login;
	struct request request;
	enum front_result result;

	if (reader == 0) {
		result = socks5_read_methods(in, len, used, &methods, &why);
		must(result != FRONT_DONE || (methods.codes >= in && methods.codes + methods.count <= in + *used));
	} else if (reader == 1) {
		result = socks5_read_login(in, len, used, &login, &why);
		must(result != FRONT_DONE || login.user + login.user_len + 1 == login.password);
		must(result != FRONT_DONE || login.password + login.password_len == in + *used);
	} else {
		result = socks5_read_request(in, len, used, &request, &why);
		if (result == FRONT_DONE)
			check_request(&request);
	}
	if (result == FRONT_REFUSE) {
		must(why.detail != NULL && why.reason != REASON_NONE);
		must(why.name == NULL || (why.name >= in && why.name + why.name_len <= in + len));
	}
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int reader = 0; reader < 3; reader++) {
		enum front_result before = FRONT_MORE;
		size_t first_used = 0;

		for (size_t len = 0; len <= size && len <= LONGEST + 8; len++) {
			uint8_t *in = malloc(len + (len == 0)); /* exact, for the sanitizer */
			size_t used = 0;

			if (in == NULL)
				abort();
			memcpy(in, data, len);
			enum front_result result = read_one(reader, in, len, &used);

			free(in);
			must(result != FRONT_DONE || (used > 0 && used <= len));
			/* A verdict never changes when more bytes follow. */
			must(before == FRONT_MORE || result == before);
			must(before != FRONT_DONE || used == first_used);
			must(before != FRONT_MORE || result != FRONT_DONE || used == len);
			must(result != FRONT_MORE || len < LONGEST);
			if (before == FRONT_MORE && result == FRONT_DONE)
				first_used = used;
			before = result;
		}
	}
	return 0;
}
