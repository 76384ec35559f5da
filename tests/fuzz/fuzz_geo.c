/* Any bytes as a country database: refused, or a sound table that answers. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libmaxminddb 1.7 loses a block of memory when it refuses a file whose description is damaged; whoever compiles a
 * database is short-lived. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libmaxminddb";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct addr a = {.family = ADDR_V4, .bytes = {192, 0, 2, 1}};
	char path[64], country[3];
	struct err why;
	uint8_t *table;
	size_t len;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (policy_geo_compile(path, &table, &len, &why) == 0) {
		if (policy_geo_verify(table, len, &why) != 0)
			abort();
		struct policy_geo *geo = policy_geo_open(table, len, &why);

		policy_geo_country(geo, &a, country);
		policy_geo_close(&geo);
		free(table);
	}
	close(fd);
	return 0;
}
