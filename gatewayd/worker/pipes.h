/* Pipes through which splice(2) moves the bytes of bulk transfers.  They are few (to an unprivileged user the kernel gives some 256
 * of this size, over all its processes), so they belong to the worker, and a direction of a session borrows one for as long as bytes
 * are in it.  Who gets none copies. */
#pragma once

#include <stdint.h>

#define PIPE_BYTES (256 * 1024)

struct relay_pipe {
	struct relay_pipe *next; /* free */
	int in, out;             /* is written to, is read from */
	uint32_t len;            /* bytes in it */
};

struct pipes {
	struct relay_pipe *free;
	unsigned made, max;
	int64_t none_before_us; /* the kernel has refused one: not asked again until then */
	unsigned *extra_fds;    /* descriptors beyond two a session, and how many there may be */
	const unsigned *max_extra_fds;
};

/* workers: that share what the user gets. */
void pipes_init(struct pipes *p, unsigned workers, unsigned *extra_fds, const unsigned *max_extra_fds);
/* An empty one; NULL: there is none now. */
struct relay_pipe *pipes_get(struct pipes *p, int64_t now_us);
/* Gives it back; with bytes in it, it is closed. */
void pipes_put(struct pipes *p, struct relay_pipe **pipe);
