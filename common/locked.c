#include "config.h"

#include "common/locked.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "common/log.h"

static void warn_once(int error)
{
	static bool warned;
	struct rlimit limit = {0};

	if (warned)
		return;
	warned = true;
	getrlimit(RLIMIT_MEMLOCK, &limit);
	log_warning("secrets in memory may be swapped out: %s (RLIMIT_MEMLOCK is %llu bytes: raise it, or have no swap that is not "
		    "encrypted)",
		    strerror(error), (unsigned long long)limit.rlim_cur);
}

void locked_keep(void *memory, size_t size)
{
	if (mlock2(memory, size, MLOCK_ONFAULT) != 0)
		warn_once(errno);
}

void *locked_new(size_t size)
{
	void *memory = mmap(NULL, size > 0 ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	locked_keep(memory, size > 0 ? size : 1);
	madvise(memory, size > 0 ? size : 1, MADV_DONTDUMP);
	return memory;
}

void locked_free(void *memory, size_t size)
{
	if (memory == NULL)
		return;
	explicit_bzero(memory, size);
	munmap(memory, size > 0 ? size : 1); /* which unlocks it */
}
