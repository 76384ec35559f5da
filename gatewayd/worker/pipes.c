#include "config.h"

#include "gatewayd/worker/pipes.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

/* pipe-user-pages-soft, in pipes of our size; some of them for whatever else the user runs. */
#define PIPES_OF_A_USER 240
/* More would only wait for memory. */
#define PIPES_MAX 64
#define PIPES_MIN 2
#define REFUSED_US 1000000

void pipes_init(struct pipes *p, unsigned workers, unsigned *extra_fds, const unsigned *max_extra_fds)
{
	unsigned max = PIPES_OF_A_USER / workers;

	*p = (struct pipes){.extra_fds = extra_fds, .max_extra_fds = max_extra_fds};
	p->max = max > PIPES_MAX ? PIPES_MAX : max < PIPES_MIN ? PIPES_MIN : max;
}

/* Half of the descriptors that all share is for connects side by side, and for associations. */
static bool may_make(const struct pipes *p, int64_t now_us)
{
	return p->made < p->max && now_us >= p->none_before_us && 2 * (p->made + 1) <= *p->max_extra_fds / 2 &&
	       *p->extra_fds + 2 <= *p->max_extra_fds;
}

static struct relay_pipe *make(struct pipes *p)
{
	struct relay_pipe *pipe = malloc(sizeof *pipe);
	int fds[2];

	if (pipe == NULL || pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) {
		free(pipe);
		return NULL;
	}
	/* A small one is worse than none. */
	if (fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES) < PIPE_BYTES) {
		close(fds[0]);
		close(fds[1]);
		free(pipe);
		return NULL;
	}
	*pipe = (struct relay_pipe){.out = fds[0], .in = fds[1]};
	p->made++;
	*p->extra_fds += 2;
	return pipe;
}

struct relay_pipe *pipes_get(struct pipes *p, int64_t now_us)
{
	struct relay_pipe *pipe = p->free;

	if (pipe != NULL) {
		p->free = pipe->next;
		return pipe;
	}
	if (!may_make(p, now_us))
		return NULL;
	pipe = make(p);
	if (pipe == NULL)
		p->none_before_us = now_us + REFUSED_US;
	return pipe;
}

void pipes_put(struct pipes *p, struct relay_pipe **pipe)
{
	struct relay_pipe *one = *pipe;

	*pipe = NULL;
	if (one == NULL)
		return;
	if (one->len == 0) {
		one->next = p->free;
		p->free = one;
		return;
	}
	close(one->in);
	close(one->out);
	free(one);
	p->made--;
	*p->extra_fds -= 2;
}
