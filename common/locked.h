/* Memory for secrets that wait: pages of their own, kept out of swap and of core files, and wiped when they are given back.  Beyond
 * RLIMIT_MEMLOCK it is memory all the same, and one line in the log says that what is in it may be swapped out. */
#pragma once

#include <stddef.h>

/* Zeroed, at least one page; NULL if memory is short.  Pages count when they are used. */
void *locked_new(size_t size);
void locked_free(void *memory, size_t size);
/* The same for memory that is there already, as far as it fills whole pages or shares them: it stays its owner's. */
void locked_keep(void *memory, size_t size);
