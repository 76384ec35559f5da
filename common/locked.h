/* Memory for secrets that wait: pages of their own, kept out of swap and of core files, and wiped when they are given back.  Beyond
 * RLIMIT_MEMLOCK it is memory all the same, and one line in the log says that what is in it may be swapped out. */
#pragma once

#include <stddef.h>

/* Zeroed, at least one page; NULL if memory is short.  Pages count when they are used. */
void *locked_new(size_t size);
void locked_free(void *memory, size_t size);
/* The same for memory that is there already, as far as it fills whole pages or shares them: it stays its owner's. */
void locked_keep(void *memory, size_t size);

/* For a process that hands secrets to libraries, which copy them to where they like: 0, or -1 with errno.  Where there is no bound to
 * what may be locked, that is all memory, also what is taken later.  Where there is one, a process that locked all would get no more
 * memory at all beyond it: so the heap (the first LOCKED_HEAP_BYTES of it) and the stack, which is where libraries copy to.  The stack
 * only where LOCKED_STACK_BYTES more may be locked, since the kernel kills whose locked stack would grow beyond the bound. */
#define LOCKED_HEAP_BYTES (2 * 1024 * 1024)
#define LOCKED_STACK_BYTES (4 * 1024 * 1024)
int locked_process(void);
