/* A datagram of RFC 1928 section 7: whole or nothing.  What is taken has a header that lies within it, of which no shorter part
 * would do, and data behind it changes nothing; a header of ours for the same address reads back as it. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/worker/socks5.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
	if (!condition)
		abort();
}

static enum front_result read_exactly(const uint8_t *data, size_t len, size_t *used, struct request *out)
{
	uint8_t *in = malloc(len + (len == 0)); /* exact, for the sanitizer */
	struct front_refusal why = {0};

	if (in == NULL)
		abort();
	memcpy(in, data, len);
	enum front_result result = socks5_read_datagram(in, len, used, out, &why);

	must(result == FRONT_DONE || (result == FRONT_REFUSE && why.reason != REASON_NONE));
	must(result != FRONT_REFUSE || (why.reason == REASON_FRAGMENT) == (len >= 3 && in[0] == 0 && in[1] == 0 && in[2] != 0));
	free(in);
	return result;
}

static void check_name(const struct name *name)
{
	struct name again;
	struct addr address;
	const char *why;

	must(name_canonical(name->text, name->len, &again, &address, &why) == NAME_IS_NAME);
	must(again.len == name->len && memcmp(again.text, name->text, again.len + 1u) == 0);
}

static void check_round_trip(const struct request *r)
{
	struct endpoint from = {.addr = r->address, .port = r->port};
	uint8_t header[SOCKS5_UDP_HEADER_MAX];
	struct request again;
	size_t used, len = socks5_write_datagram(header, &from);

	must(read_exactly(header, len, &used, &again) == FRONT_DONE && used == len);
	must(addr_equal(&again.address, &r->address) && again.port == r->port && !again.has_name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct request request, shorter;
	size_t used = 0, unused;

	if (read_exactly(data, size, &used, &request) != FRONT_DONE)
		return 0;
	must(used >= 3 + 1 + 1 + 2 && used <= size && used <= 3 + 1 + 1 + 255 + 2);
	must(request.command == POLICY_UDP);
	for (size_t len = 0; len < used; len++)
		must(read_exactly(data, len, &unused, &shorter) == FRONT_REFUSE);
	must(read_exactly(data, used, &unused, &shorter) == FRONT_DONE && unused == used);
	if (request.has_name)
		check_name(&request.name);
	else
		check_round_trip(&request);
	return 0;
}
