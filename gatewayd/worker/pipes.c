#include "config.h"

#include "gatewayd/worker/pipes.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

/* pipe-user-pages-soft is 64 MiB; some of them for whatever else the user runs. */
#define BYTES_OF_A_USER ((size_t)60 * 1024 * 1024)
/* More would only wait for memory. */
#define PIPES_MAX 64
#define PIPES_MIN 2
#define WIDE_MAX 16
#define REFUSED_US 1000000

void pipes_init(struct pipes *p, unsigned workers, unsigned *extra_fds, const unsigned *max_extra_fds)
{
	size_t bytes = BYTES_OF_A_USER / workers;

	*p = (struct pipes){.extra_fds = extra_fds, .max_extra_fds = max_extra_fds};
	p->max_bytes = bytes < PIPES_MIN * PIPE_BYTES ? PIPES_MIN * PIPE_BYTES : bytes;
}

/* Half of the descriptors that all share is for connects side by side, and for associations. */
static bool may_make(const struct pipes *p, int64_t now_us)
{
	return p->made < PIPES_MAX && p->bytes + PIPE_BYTES <= p->max_bytes && now_us >= p->none_before_us &&
	       2 * (p->made + 1) <= *p->max_extra_fds / 2 && *p->extra_fds + 2 <= *p->max_extra_fds;
}

/* Wide ones take no more than half of what there is. */
static bool may_make_wide(const struct pipes *p, int64_t now_us)
{
	return p->made_wide < WIDE_MAX && (p->made_wide + 1) * (size_t)PIPE_WIDE_BYTES <= p->max_bytes / 2 &&
	       p->bytes + PIPE_WIDE_BYTES <= p->max_bytes && now_us >= p->no_wide_before_us && may_make(p, now_us);
}

/* A smaller one than that is worse than none. */
static struct relay_pipe *make(struct pipes *p, uint32_t size)
{
	struct relay_pipe *pipe = malloc(sizeof *pipe);
	int fds[2];

	if (pipe == NULL || pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) {
		free(pipe);
		return NULL;
	}
	if (fcntl(fds[1], F_SETPIPE_SZ, size) < (int)size) {
		close(fds[0]);
		close(fds[1]);
		free(pipe);
		return NULL;
	}
	*pipe = (struct relay_pipe){.out = fds[0], .in = fds[1], .size = size};
	p->made++;
	p->made_wide += size == PIPE_WIDE_BYTES;
	p->bytes += size;
	*p->extra_fds += 2;
	return pipe;
}

static struct relay_pipe **free_ones(struct pipes *p, uint32_t size)
{
	return size == PIPE_WIDE_BYTES ? &p->wide : &p->narrow;
}

static struct relay_pipe *take(struct relay_pipe **list)
{
	struct relay_pipe *pipe = *list;

	if (pipe != NULL)
		*list = pipe->next;
	return pipe;
}

struct relay_pipe *pipes_get(struct pipes *p, int64_t now_us)
{
	struct relay_pipe *pipe = take(&p->wide);

	if (pipe == NULL && may_make_wide(p, now_us)) {
		pipe = make(p, PIPE_WIDE_BYTES);
		if (pipe == NULL)
			p->no_wide_before_us = now_us + REFUSED_US;
	}
	if (pipe == NULL)
		pipe = take(&p->narrow);
	if (pipe == NULL && may_make(p, now_us)) {
		pipe = make(p, PIPE_BYTES);
		if (pipe == NULL)
			p->none_before_us = now_us + REFUSED_US;
	}
	return pipe;
}

void pipes_put(struct pipes *p, struct relay_pipe **pipe)
{
	struct relay_pipe *one = *pipe;

	*pipe = NULL;
	if (one == NULL)
		return;
	if (one->len == 0) {
		one->next = *free_ones(p, one->size);
		*free_ones(p, one->size) = one;
		return;
	}
	close(one->in);
	close(one->out);
	p->made--;
	p->made_wide -= one->size == PIPE_WIDE_BYTES;
	p->bytes -= one->size;
	free(one);
	*p->extra_fds -= 2;
}
