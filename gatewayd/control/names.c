/* What users of this host are called who command the gateway: shown beside their uid, which is who they are.  We are confined, so a
 * child of the authenticator asks the name service.  Whoever comes for the first time waits for that, for a second at most: a command
 * does not depend on a directory somewhere. */
#include "config.h"

#include <event2/event.h>
#include <string.h>

#include "auth/auth.h"
#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/control/internal.h"

#define KNOWN_MAX 64
#define PATIENCE_S 1
/* For how long a name is believed; and that there is none. */
#define NAMED_US (300 * INT64_C(1000000))
#define NAMELESS_US (30 * INT64_C(1000000))

static struct known {
	struct control *control;
	struct event patience;
	uid_t uid;
	bool used, asked; /* asked: it has not been told yet; */
	bool waited;	  /* and those who come do not wait for it any more */
	int64_t told_us;  /* monotonic */
	char name[AUTH_LOGIN_MAX + 1];
} known[KNOWN_MAX];

static void on_patience_over(evutil_socket_t fd, short what, void *arg)
{
	struct known *k = arg;

	(void)fd, (void)what;
	k->waited = true;
	admin_named(k->control, k->uid, k->name);
}

/* When there is an authenticator: until then it waits for one. */
static void ask(const struct known *k)
{
	struct peer *p = auth_peer(k->control);
	uint8_t body[16];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	auth_put_login_ask(&w, &(struct auth_login){.uid = k->uid});
	if (p != NULL)
		ipc_send_wire(p->link, IPC_LOGIN_ASK, &w);
}

static bool is_old(const struct known *k, int64_t now)
{
	return !k->asked && now - k->told_us > (k->name[0] == '\0' ? NAMELESS_US : NAMED_US);
}

static struct known *find(uid_t uid)
{
	for (size_t i = 0; i < KNOWN_MAX; i++)
		if (known[i].used && known[i].uid == uid)
			return &known[i];
	return NULL;
}

/* The place of whoever was told longest ago; NULL: all wait to be told. */
static struct known *place(void)
{
	struct known *oldest = NULL;

	for (size_t i = 0; i < KNOWN_MAX; i++) {
		if (!known[i].used)
			return &known[i];
		if (!known[i].asked && (oldest == NULL || known[i].told_us < oldest->told_us))
			oldest = &known[i];
	}
	return oldest;
}

bool names_find(struct control *c, uid_t uid, char name[AUTH_LOGIN_MAX + 1])
{
	struct known *k = find(uid);
	int64_t now = clock_mono_us();

	name[0] = '\0';
	if (k != NULL && !is_old(k, now)) {
		strcpy(name, k->name);
		return !k->asked || k->waited;
	}
	if (k == NULL)
		k = place();
	if (k == NULL)
		return true;
	if (!k->used)
		evtimer_assign(&k->patience, c->child->base, on_patience_over, k);
	k->control = c;
	k->uid = uid;
	k->used = k->asked = true;
	k->waited = false;
	k->name[0] = '\0';
	evtimer_add(&k->patience, &(struct timeval){.tv_sec = PATIENCE_S});
	ask(k);
	return false;
}

void names_told(struct peer *p, const struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct auth_login told;
	struct known *k;

	if (!auth_get_login(&r, &told)) {
		ipc_reject(p->link, "a malformed name");
		return;
	}
	k = find(told.uid);
	if (k == NULL || !k->asked)
		return;
	event_del(&k->patience);
	k->asked = false;
	k->told_us = clock_mono_us();
	strcpy(k->name, told.name);
	admin_named(p->control, k->uid, k->name);
}

void names_ask_again(void)
{
	for (size_t i = 0; i < KNOWN_MAX; i++)
		if (known[i].used && known[i].asked)
			ask(&known[i]);
}
