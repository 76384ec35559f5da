#include "config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "gatewayd/supervisor/internal.h"

/* Who talks to whom.  Compilers and readers get their link to control when control asks for them. */
static const struct {
	enum role a, b;
} pairs[] = {
	{ROLE_WORKER, ROLE_AUTH},      {ROLE_WORKER, ROLE_RECORDER}, {ROLE_CONTROL, ROLE_WORKER},
	{ROLE_CONTROL, ROLE_RECORDER}, {ROLE_CONTROL, ROLE_AUTH},    {ROLE_AUTH, ROLE_PAM},
	{ROLE_AUTH, ROLE_GSSAPI},
};

static bool talk(enum role a, enum role b)
{
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		if ((pairs[i].a == a && pairs[i].b == b) || (pairs[i].a == b && pairs[i].b == a))
			return true;
	return false;
}

static void send_peer(struct process *to, const struct process *peer, int fd)
{
	uint8_t body[8];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	wire_put_u8(&w, (uint8_t)peer->role);
	wire_put_u16(&w, peer->slot);
	ipc_send(to->link, IPC_PEER, body, w.len, &fd, 1);
}

int links_pair(struct process *a, struct process *b)
{
	int fds[2];

	if (ipc_pair(fds) != 0) {
		log_error("cannot link %s and %s: %s", role_name(a->role), role_name(b->role), strerror(errno));
		return -1;
	}
	send_peer(a, b, fds[0]);
	send_peer(b, a, fds[1]);
	return 0;
}

void links_connect(struct process *p)
{
	struct process *other;

	if (p->role == ROLE_AUTH)
		gssapi_end_retired(p->sup);
	if (p->part != SERVES)
		return;
	TAILQ_FOREACH (other, &p->sup->processes, next)
		if (other != p && other->part == SERVES && other->link != NULL && talk(p->role, other->role) && links_pair(p, other) != 0) {
			/* Without its links it cannot work: start over, with back-off. */
			process_kill(p);
			return;
		}
}
