#include "config.h"

#include "common/locked.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
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

/* The heap is as large from now on as what is to be locked, and is never given back. */
static void grow_heap(void)
{
	void *some;

	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	mallopt(M_MMAP_THRESHOLD, LOCKED_HEAP_BYTES / 2);
	mallopt(M_TOP_PAD, LOCKED_HEAP_BYTES);
	some = malloc(LOCKED_HEAP_BYTES / 4); /* more than it has at the start */
	free(some);
	mallopt(M_TOP_PAD, 128 * 1024);
}

/* Whether so much more could be locked, which only the kernel knows: a right to lock counts besides the limit. */
static bool may_lock(size_t bytes)
{
	void *some = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	bool may = some != MAP_FAILED && mlock2(some, bytes, MLOCK_ONFAULT) == 0;

	if (some != MAP_FAILED)
		munmap(some, bytes);
	return may;
}

/* A locked stack that grows beyond what may be locked is a SIGSEGV: it is locked where there is room for what it may come to. */
static int lock_stack(void *begin, size_t size)
{
	if (may_lock(size + LOCKED_STACK_BYTES))
		return mlock2(begin, size, MLOCK_ONFAULT);
	errno = ENOMEM;
	return -1;
}

static int lock_heap_and_stack(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long begin, end;
	char line[512];
	int rc = maps == NULL ? -1 : 0;

	while (rc == 0 && fgets(line, sizeof line, maps) != NULL) {
		if (sscanf(line, "%lx-%lx", &begin, &end) != 2)
			continue;
		if (strstr(line, " [heap]\n") != NULL)
			rc = mlock2((void *)begin, end - begin, MLOCK_ONFAULT);
		else if (strstr(line, " [stack]\n") != NULL)
			rc = lock_stack((void *)begin, end - begin);
	}
	if (maps != NULL)
		fclose(maps);
	return rc;
}

int locked_process(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
		return -1;
	if (limit.rlim_cur == RLIM_INFINITY)
		return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
	grow_heap();
	return lock_heap_and_stack();
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
