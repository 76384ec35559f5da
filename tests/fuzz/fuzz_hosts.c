/* The system's hosts and resolv.conf: any bytes make a table, and what is found in it is within bounds. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/worker/hosts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hosts *h = hosts_parse(data, size);
	struct endpoint servers[3];
	struct addr found[4], unused;
	struct name name;
	const char *why;

	if (h == NULL)
		return 0;
	/* Every word of the text that is a name. */
	for (size_t at = 0, end; at < size; at = end + 1) {
		for (end = at; end < size && memchr(" \t\r\n#", data[end], 5) == NULL;)
			end++;
		if (name_canonical(data + at, end - at, &name, &unused, &why) != NAME_IS_NAME)
			continue;
		size_t n = hosts_find(h, &name, found, 4);

		for (size_t i = 0; i < n && i < 4; i++)
			if (found[i].family != ADDR_V4 && found[i].family != ADDR_V6)
				abort();
	}
	hosts_free(&h);
	size_t n = resolv_conf_servers(data, size, servers, 3);

	if (n > 3)
		abort();
	for (size_t i = 0; i < n; i++)
		if (servers[i].port != 53 || servers[i].addr.family == ADDR_NONE)
			abort();
	return 0;
}
