/* Pipes through which splice(2) moves the bytes of bulk transfers.  They are few (to an unprivileged user the kernel gives some 64 MiB
 * of them, over all its processes), so they belong to the worker, and a direction of a session borrows one for as long as bytes
 * are in it.  Who gets none copies.
 *
 * The wider a pipe, the seldomer both ends are woken and waited for: bytes cost a quarter less through 1 MiB than through 256 KiB.
 * So the first ones, of which one is enough as long as receivers keep up, are wide, and those that many slow receivers take besides
 * are narrow. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PIPE_WIDE_BYTES (1024 * 1024) /* pipe-max-size: what an unprivileged user may have at most */
#define PIPE_BYTES (256 * 1024)

struct relay_pipe {
	struct relay_pipe *next; /* free */
	int in, out;             /* is written to, is read from */
	uint32_t size;
	uint32_t len;            /* bytes in it */
};

struct pipes {
	struct relay_pipe *wide, *narrow; /* free */
	unsigned made, made_wide;
	size_t bytes, max_bytes; /* of all that are made */
	int64_t none_before_us;  /* the kernel has refused one: not asked again until then */
	int64_t no_wide_before_us;
	unsigned *extra_fds;     /* descriptors beyond two a session, and how many there may be */
	const unsigned *max_extra_fds;
};

/* workers: that share what the user gets. */
void pipes_init(struct pipes *p, unsigned workers, unsigned *extra_fds, const unsigned *max_extra_fds);
/* An empty one; NULL: there is none now. */
struct relay_pipe *pipes_get(struct pipes *p, int64_t now_us);
/* Gives it back; with bytes in it, it is closed. */
void pipes_put(struct pipes *p, struct relay_pipe **pipe);
