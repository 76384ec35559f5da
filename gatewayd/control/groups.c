/* Groups that a policy names and this host does not know: a rule about one never matches, which of a deny rule nobody would notice.  We are
 * confined, so a child of the authenticator asks the name service, and the file of groups; it may hang, so a change waits for that for some
 * seconds at most, and says then that it is not known. */
#include "config.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"

#define PATIENCE_S 5

struct groups_job {
	LIST_ENTRY(groups_job) next;
	struct control *control;
	struct named_groups *groups;
	struct auth_asked_groups asked;
	size_t places[AUTH_ASKED_GROUPS_MAX]; /* of those that are asked for, in groups */
	groups_done *done;
	void *arg;
	struct event patience;
};

void groups_free(struct named_groups **groups)
{
	struct named_groups *g = *groups;

	*groups = NULL;
	for (size_t i = 0; g != NULL && i < g->n; i++)
		json_decref(g->each[i].note);
	free(g);
}

/* told: what became of the question; NULL: nothing did, and why tells why. */
static void finish(struct groups_job *job, const struct auth_asked_groups *told, const char *why)
{
	struct groups_found found = {.absent = json_array(), .why = why};
	struct named_groups *g = job->groups;
	size_t asked = 0;

	LIST_REMOVE(job, next);
	event_del(&job->patience);
	found.untold = g->all > g->n ? g->all - g->n : 0;
	for (size_t i = 0; i < g->n; i++) {
		bool is_asked = asked < job->asked.n && job->places[asked] == i;
		enum auth_group_state state = !is_asked	     ? AUTH_GROUP_ABSENT
					      : told == NULL ? AUTH_GROUP_UNTOLD
							     : (enum auth_group_state)told->states[asked];

		asked += is_asked;
		if (state == AUTH_GROUP_ABSENT)
			json_array_append(found.absent, g->each[i].note);
		found.untold += state == AUTH_GROUP_UNTOLD;
	}
	job->done(job->control, &found, job->arg);
	json_decref(found.absent);
	groups_free(&job->groups);
	free(job);
}

static void on_patience_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	finish(arg, NULL, "no answer came in time");
}

static bool send_question(struct groups_job *job)
{
	struct peer *p = auth_peer(job->control);
	uint8_t body[8192];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	auth_put_groups_ask(&w, &job->asked);
	return p != NULL && ipc_send_wire(p->link, IPC_GROUPS_ASK, &w) == 0;
}

void groups_ask(struct control *c, struct named_groups *groups, groups_done *done, void *arg)
{
	struct groups_job *job = calloc(1, sizeof *job);

	if (job == NULL)
		log_fatal("out of memory");
	job->control = c;
	job->groups = groups;
	job->done = done;
	job->arg = arg;
	arc4random_buf(&job->asked.id, sizeof job->asked.id); /* of a control before us, others may still be under way */
	for (size_t i = 0; i < groups->n; i++) {
		if (groups->each[i].name[0] == '\0')
			continue;
		job->places[job->asked.n] = i;
		strcpy(job->asked.names[job->asked.n++], groups->each[i].name);
	}
	LIST_INSERT_HEAD(&c->groups_jobs, job, next);
	evtimer_assign(&job->patience, c->child->base, on_patience_over, job);
	if (job->asked.n == 0)
		finish(job, NULL, NULL);
	else if (!send_question(job))
		finish(job, NULL, "the authenticator is not running");
	else
		evtimer_add(&job->patience, &(struct timeval){.tv_sec = PATIENCE_S});
}

/* What is on its way from there is lost with the link, and who comes next knows of no question. */
void groups_peer_gone(const struct peer *p)
{
	struct groups_job *job;

	if (p->role != ROLE_AUTH)
		return;
	while ((job = LIST_FIRST(&p->control->groups_jobs)) != NULL)
		finish(job, NULL, "the authenticator ended");
}

void groups_told(struct peer *p, const struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct auth_asked_groups told;
	struct groups_job *job;

	if (!auth_get_groups_told(&r, &told)) {
		ipc_reject(p->link, "malformed words about groups");
		return;
	}
	LIST_FOREACH (job, &p->control->groups_jobs, next)
		if (job->asked.id == told.id && job->asked.n == told.n) {
			finish(job, &told, NULL);
			return;
		}
}
