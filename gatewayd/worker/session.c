#include "config.h"

#include "gatewayd/worker/session.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <malloc.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/recording.h"
#include "gatewayd/worker/fold.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/recent.h"
#include "gatewayd/worker/resolver.h"
#include "gatewayd/worker/shared.h"
#include "gatewayd/worker/steer.h"
#include "gatewayd/worker/udp.h"
#include "gatewayd/worker/worker.h"

/* How long a refused client has to read its reply, and how much more of its bytes we are willing to throw away. */
#define CLOSING_US 2000000
#define CLOSING_BYTES (64 * 1024)
/* Clients turned away that get a row, of each second. */
#define TURNED_AWAY_ROWS 20

static const char *const state_names[SESSION_STATE_COUNT] = {
	[SESSION_COUNTING] = "counting",
	[SESSION_GREETING] = "greeting",   [SESSION_LOGIN] = "login",
	[SESSION_NEGOTIATING] = "negotiating", [SESSION_PROTECTING] = "protecting",         [SESSION_AUTHENTICATING] = "authenticating",
	[SESSION_DELAYING] = "delaying",   [SESSION_REQUEST] = "request",     [SESSION_RESOLVING] = "resolving",
	[SESSION_ADMITTING] = "admitting",
	[SESSION_GRANTING] = "granting",   [SESSION_BINDING] = "binding",     [SESSION_ACCEPTING] = "accepting",
	[SESSION_ASSOCIATED] = "associated",
   [SESSION_RELAYING] = "relaying",   [SESSION_CLOSING] = "closing",
};

#define TO(state) (1u << SESSION_##state)
#define HANDSHAKE (TO(COUNTING) | TO(GREETING) | TO(LOGIN) | TO(NEGOTIATING) | TO(REQUEST))

static const unsigned legal_moves[SESSION_STATE_COUNT] = {
	[SESSION_COUNTING] = TO(GREETING) | TO(CLOSING),
	[SESSION_GREETING] = TO(LOGIN) | TO(NEGOTIATING) | TO(REQUEST) | TO(CLOSING),
	[SESSION_LOGIN] = TO(AUTHENTICATING) | TO(CLOSING),
	[SESSION_NEGOTIATING] = TO(AUTHENTICATING) | TO(DELAYING) | TO(CLOSING),
	[SESSION_PROTECTING] = TO(REQUEST) | TO(CLOSING),
	[SESSION_AUTHENTICATING] = TO(NEGOTIATING) | TO(PROTECTING) | TO(REQUEST) | TO(DELAYING) | TO(CLOSING),
	[SESSION_DELAYING] = TO(CLOSING),
	[SESSION_REQUEST] = TO(ADMITTING) | TO(RESOLVING) | TO(GRANTING) | TO(CLOSING),
	[SESSION_ADMITTING] = TO(RESOLVING) | TO(GRANTING) | TO(CLOSING),
	[SESSION_RESOLVING] = TO(GRANTING) | TO(CLOSING),
	[SESSION_GRANTING] = TO(RELAYING) | TO(BINDING) | TO(ASSOCIATED) | TO(CLOSING),
	[SESSION_BINDING] = TO(ACCEPTING) | TO(CLOSING),
	[SESSION_ACCEPTING] = TO(RELAYING) | TO(CLOSING),
	[SESSION_RELAYING] = 0,
	[SESSION_ASSOCIATED] = 0,
	[SESSION_CLOSING] = 0,
};

const char *session_state_name(enum session_state state)
{
	return state_names[state];
}

static void stop_shaking(struct setup *setup)
{
	struct session *s = setup->session;

	if (!setup->in_shaking)
		return;
	TAILQ_REMOVE(&s->worker->shaking, setup, shaking);
	setup->in_shaking = false;
	--*accept_shakers(s->worker, &s->client.addr);
}

void session_set_state(struct session *s, enum session_state state)
{
	if (s->setup != NULL && !(HANDSHAKE & 1u << state))
		stop_shaking(s->setup);
	assert(legal_moves[s->state] & (1u << state));
	if (log_get_level() >= LOG_DEBUG)
		log_debug("session %016llx: %s -> %s", (unsigned long long)s->id, state_names[s->state], state_names[state]);
	s->state = state;
}

const char *session_method(const struct session *s)
{
	if (s->protocol == PROTOCOL_SOCKS4)
		return "socks4";

	if (s->gss != NULL)
		return "gssapi";
	uint8_t method = s->setup != NULL ? s->setup->method : s->user != NULL ? 0x02 : 0x00;

	return method == 0x02 ? "password" : method == 0x00 ? "none" : "";
}

/* ---- time ----------------------------------------------------------------------------------------------------- */

void session_arm(struct session *s, int64_t after_us)
{
	struct timeval tv;

	if (after_us < 0)
		after_us = 0;
	tv = (struct timeval){.tv_sec = after_us / 1000000, .tv_usec = after_us % 1000000};
	evtimer_add(&s->timer, &tv);
}

int64_t session_age_left_us(const struct session *s, int64_t now_us)
{
	int64_t limit = (int64_t)s->listener->max_session_age_ms * 1000;

	int64_t age = limit == 0 ? INT64_MAX : s->granted_us + limit - now_us;
	int64_t ticket = gss_expires_us(s);

	if (ticket == INT64_MAX)
		return age;
	return ticket - now_us < age ? ticket - now_us : age;
}

const char *session_age_reason(const struct session *s, int64_t now_us)
{
	return gss_expires_us(s) <= now_us ? "the client's ticket has expired" : "maximum session age";
}

/* Every waiting state has a deadline, and a way to end at it. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct session *s = arg;

	(void)fd, (void)what;
	switch (s->state) {
	case SESSION_COUNTING:
		session_turn_away(s, REASON_LIMIT, "who counts sessions did not answer in time");
		return;
	case SESSION_GREETING:
	case SESSION_LOGIN:
	case SESSION_NEGOTIATING:
	case SESSION_PROTECTING:
	case SESSION_REQUEST:
		handshake_timeout(s);
		return;
	case SESSION_AUTHENTICATING:
		session_refuse(s, REASON_LOGIN_FAILED, "the authenticator did not answer in time");
		return;
	case SESSION_DELAYING:
		handshake_delay_over(s);
		return;
	case SESSION_ADMITTING:
		session_refuse(s, REASON_LIMIT, "who counts sessions did not answer in time");
		return;
	case SESSION_RESOLVING:
		session_refuse(s, REASON_LOOKUP_FAILED, "the resolver did not answer in time");
		return;
	case SESSION_BINDING:
		bind_timeout(s);
		return;
	case SESSION_GRANTING:
	case SESSION_ACCEPTING:
		grant_audit_timeout(s);
		return;
	case SESSION_ASSOCIATED:
		udp_idle_check(s);
		return;
	case SESSION_RELAYING:
		relay_idle_check(s);
		return;
	case SESSION_CLOSING:
	case SESSION_STATE_COUNT:
		session_drop(s);
		return;
	}
}

/* ---- birth and death --------------------------------------------------------------------------------------------- */

/* A flood leaves its memory with the allocator, scattered among what lives on: it is given back when most of the sessions are
 * gone, a moment later, so that a busy worker does it seldom. */
#define TRIM_PEAK 64
#define TRIM_S 1
/* What comes in bursts finds its memory where the last one left it, until then. */
#define SLABS_KEPT 4

static bool was_flood(const struct worker *w)
{
	return w->peak_sessions >= TRIM_PEAK && w->nsessions <= w->peak_sessions / 4;
}

static void on_trim(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;

	(void)fd, (void)what;
	pool_trim(&w->session_pool);
	pool_trim(&w->setup_pool);
	if (!was_flood(w))
		return;
	malloc_trim(0);
	w->peak_sessions = w->nsessions;
}

static void trim_later(struct worker *w)
{
	struct timeval wait = {.tv_sec = TRIM_S};
	bool wanted = was_flood(w) || pool_has_spare(&w->session_pool) || pool_has_spare(&w->setup_pool);

	if (wanted && !evtimer_pending(&w->trim_timer, NULL))
		evtimer_add(&w->trim_timer, &wait);
}

void sessions_init(struct worker *w)
{
	pool_init(&w->session_pool, sizeof(struct session));
	pool_init_secret(&w->setup_pool, sizeof(struct setup)); /* log-ins come in here, maybe slowly */
	pool_keep(&w->session_pool, SLABS_KEPT);
	pool_keep(&w->setup_pool, SLABS_KEPT);
	TAILQ_INIT(&w->sessions);
	TAILQ_INIT(&w->shaking);
	TAILQ_INIT(&w->lingering);
	TAILQ_INIT(&w->delaying);
	TAILQ_INIT(&w->gss_shaking);
	grant_init(w);
	evtimer_assign(&w->trim_timer, w->base, on_trim, w);
}

/* 40 random bits and a count: unique without asking anybody. */
static uint64_t next_id(struct worker *w)
{
	if ((w->session_count & 0xffffff) == 0xffffff)
		w->session_tag = worker_random_tag();
	return w->session_tag | (++w->session_count & 0xffffff);
}

struct session *session_new(struct worker *w, const struct config_listener *listener, int fd, const struct endpoint *client)
{
	struct session *s = pool_get(&w->session_pool);

	if (s != NULL)
		s->setup = pool_get(&w->setup_pool);
	if (s == NULL || s->setup == NULL || sock_add(&w->sockets, &s->client_sock, fd, false, s) != 0) {
		if (s != NULL)
			pool_put(&w->setup_pool, s->setup);
		pool_put(&w->session_pool, s);
		close(fd);
		return NULL;
	}
	s->setup->session = s;
	s->setup->waiter.durable = grant_recorded;
	s->worker = w;
	s->listener = listener;
	s->id = next_id(w);
	s->client_fd = fd;
	s->server_fd = -1;
	s->client = *client;
	s->accepted_us = s->active_us = clock_mono_us();
	evtimer_assign(&s->timer, w->base, on_timer, s);
	TAILQ_INSERT_TAIL(&w->sessions, s, next);
	TAILQ_INSERT_TAIL(&w->shaking, s->setup, shaking);
	s->setup->in_shaking = true;
	++*accept_shakers(w, &client->addr);
	if (++w->nsessions > w->peak_sessions)
		w->peak_sessions = w->nsessions;
	return s;
}

void session_free_setup(struct session *s)
{
	struct setup *setup = s->setup;

	if (setup == NULL)
		return;
	connect_stop(s);
	lookup_cancel(&setup->lookup);
	record_forget(&setup->record);
	authenticate_cancel(s);
	limits_stop_asking(setup);
	if (setup->in_delaying)
		TAILQ_REMOVE(&s->worker->delaying, setup, delaying);
	stop_shaking(setup);
	ruleset_unref(&setup->rules);
	free(setup->refusal_detail);
	/* Wiped, as far as it was used: a log-in went through it. */
	pool_put_used(&s->worker->setup_pool, setup, offsetof(struct setup, in) + setup->in_len);
	s->setup = NULL;
	trim_later(s->worker);
}

static void close_fd(int *fd, bool reset)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (*fd < 0)
		return;
	if (reset)
		setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(*fd);
	*fd = -1;
}

static void forget_events(struct session *s)
{
	sock_forget(&s->client_sock);
	sock_forget(&s->server_sock);
	evtimer_del(&s->timer);
}

static void session_free(struct session *s, bool reset)
{
	struct worker *w = s->worker;

	assert(s->connected_us == 0);
	session_free_setup(s);
	udp_free(s);
	gss_free(s);
	limits_done(s);
	forget_events(s);
	relay_free(s);
	close_fd(&s->client_fd, reset);
	close_fd(&s->server_fd, reset);
	shared_put(&s->user);
	shared_put(&s->name);
	shared_put(&s->rule);
	free(s->claimed);
	live_forget(s);
	if (s->in_lingering)
		TAILQ_REMOVE(&w->lingering, s, lingering);
	steer_session_gone(s);
	TAILQ_REMOVE(&w->sessions, s, next);
	w->nsessions--;
	pool_put(&w->session_pool, s);
	trim_later(w);
	accept_update(w);
}

void session_drop(struct session *s)
{
	assert(!s->granted);
	session_free(s, false);
}

/* ---- records ------------------------------------------------------------------------------------------------------- */

/* Seven texts an event, three events a session: not by printf(3). */
static void copy_text(char *out, size_t size, const char *text)
{
	size_t len = text == NULL ? 0 : strlen(text);

	if (len >= size)
		len = size - 1;
	if (len > 0)
		memcpy(out, text, len);
	out[len] = '\0';
}

static const char *command_name(enum policy_command command)
{
	switch (command) {
	case POLICY_CONNECT:
		return "connect";
	case POLICY_BIND:
		return "bind";
	case POLICY_UDP:
		return "udp";
	}
	return "";
}

void session_event(const struct session *s, enum audit_kind kind, struct audit_event *e)
{
	/* The detail is large: only its first byte matters when it is empty. */
	memset(e, 0, offsetof(struct audit_event, detail) + 1);
	e->kind = kind;
	e->session = s->id;
	e->time_us = clock_wall_us();
	e->client = s->client;
	e->address = (struct endpoint){.addr = s->address, .port = s->port};
	e->bytes_up = s->up.bytes;
	/* What the destination sent, also when it reaches the client in messages of another size. */
	e->bytes_down = s->down.bytes > gss_overhead(s) ? s->down.bytes - gss_overhead(s) : 0;
	e->revision = s->revision;
	copy_text(e->listener, sizeof e->listener, s->listener->name);
	copy_text(e->user, sizeof e->user, s->user);
	copy_text(e->method, sizeof e->method, session_method(s));
	copy_text(e->command, sizeof e->command, command_name(s->command));
	copy_text(e->name, sizeof e->name, s->name);
	copy_text(e->rule, sizeof e->rule, s->rule);
}

static void set_reason(struct audit_event *e, enum reason reason, const char *detail)
{
	snprintf(e->reason, sizeof e->reason, "%s%s%s", reason_word(reason), detail == NULL ? "" : ": ",
		 detail == NULL ? "" : detail);
}

static bool is_login_failure(enum reason reason)
{
	return reason == REASON_LOGIN_DENIED || reason == REASON_LOGIN_FAILED || reason == REASON_LOGIN_THROTTLED;
}

static enum audit_kind refusal_kind(const struct session *s, enum reason reason)
{
	return s->granted ? AUDIT_ENDED : is_login_failure(reason) ? AUDIT_LOGIN_FAILED : AUDIT_DENIED;
}

/* What an end tells besides its columns: what was not carried, else where that was. */
static void write_dropped(const struct session *s, struct audit_event *e)
{
	if (s->association != NULL)
		detail_write_dropped(&s->association->counts, e);
	else if (s->strangers > 0)
		detail_write_dropped(&(struct udp_counts){.strangers = s->strangers}, e);
	else if (e->detail[0] == '\0')
		detail_write_place(s, e);
}

static void record_refusal(struct session *s, enum reason reason, const char *detail, const struct policy_image *image,
			   const struct policy_decision *d)
{
	static struct audit_event e;
	struct worker *w = s->worker;

	session_event(s, refusal_kind(s, reason), &e);
	set_reason(&e, reason, detail);
	if (d != NULL)
		detail_write(s, image, d, &e);
	if (s->granted) {
		e.duration_us = clock_mono_us() - s->granted_us;
		write_dropped(s, &e);
	}
	*(s->granted ? &w->counters.failed : is_login_failure(reason) ? &w->counters.login_failed : &w->counters.denied) += 1;
	if (!s->granted)
		recent_refused(w, &e);
	if (s->granted ? !s->unrecorded : !fold_take(w->fold, &e))
		record_event(w->recording, &e, NULL);
	s->granted = false;
}

/* ---- refusing --------------------------------------------------------------------------------------------------------- */

/* Throws away what the client still sends, so that closing does not reset the connection under the reply. */
static void on_closing_readable(void *arg)
{
	struct session *s = arg;
	ssize_t n = sock_recv(&s->client_sock, s->worker->buffer, sizeof s->worker->buffer);

	if (n > 0)
		s->up.bytes += (uint64_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || s->up.bytes > CLOSING_BYTES)
		session_drop(s);
}

static void linger(struct session *s)
{
	session_free_setup(s);
	udp_free(s);
	gss_forget_bytes(s);
	limits_done(s);
	sock_forget(&s->server_sock);
	close_fd(&s->server_fd, false);
	s->up.bytes = 0;
	s->in_lingering = true;
	TAILQ_INSERT_TAIL(&s->worker->lingering, s, lingering);
	shutdown(s->client_fd, SHUT_WR);
	sock_on_read(&s->client_sock, on_closing_readable);
	session_arm(s, CLOSING_US);
}

static void refuse(struct session *s, enum reason reason)
{
	handshake_refusal_reply(s, reason);
	session_set_state(s, SESSION_CLOSING);
	linger(s);
}

void session_refuse(struct session *s, enum reason reason, const char *detail)
{
	record_refusal(s, reason, detail, NULL, NULL);
	refuse(s, reason);
}

void session_turn_away(struct session *s, enum reason reason, const char *detail)
{
	struct worker *w = s->worker;
	int64_t second = clock_mono_us() / 1000000;

	if (second != w->turned_away_s) {
		w->turned_away_s = second;
		w->turned_away_rows = 0;
	}
	w->counters.turned_away++;
	/* A flood of connections must not become one of rows. */
	if (w->turned_away_rows++ < TURNED_AWAY_ROWS)
		record_refusal(s, reason, detail, NULL, NULL);
	session_drop(s);
}

void session_cut_delay(struct session *s)
{
	record_refusal(s, s->setup->refusal, s->setup->refusal_detail, NULL, NULL);
	session_drop(s);
}

void session_deny(struct session *s, const struct policy_image *image, const struct policy_decision *d)
{
	char text[AUDIT_TEXT_MAX];

	record_refusal(s, REASON_POLICY, policy_decision_text(image, d, text, sizeof text), image, d);
	refuse(s, REASON_POLICY);
}

int64_t session_checkpoint_left_us(const struct session *s, int64_t now_us)
{
	return s->checked_us + (int64_t)s->worker->config->checkpoint_interval_ms * 1000 - now_us;
}

void session_checkpoint(struct session *s, int64_t now_us)
{
	static struct audit_event e;
	uint64_t bytes = s->up.bytes + s->down.bytes;

	/* What would have to wait is worth no row: the next one tells as much. */
	s->checked_us = now_us;
	if (s->unrecorded || bytes == s->checked_bytes || !recording_has_room(s->worker->recording))
		return;
	s->checked_bytes = bytes;
	grant_tell(s);
	session_event(s, AUDIT_CHECKPOINT, &e);
	e.duration_us = now_us - s->granted_us;
	record_event(s->worker->recording, &e, NULL);
}

void session_carried(struct session *s, int64_t now_us)
{
	uint64_t limit = (uint64_t)s->worker->config->checkpoint_mb << 20;

	if (s->up.bytes + s->down.bytes - s->checked_bytes >= limit)
		session_checkpoint(s, now_us);
}

void session_end(struct session *s, const char *reason, bool reset)
{
	static struct audit_event e;

	int64_t connected_us = grant_untold(s);

	udp_end_flows(s);
	session_event(s, AUDIT_ENDED, &e);
	if (connected_us != 0)
		detail_write_connected(s, connected_us, &e);
	else
		write_dropped(s, &e);
	e.duration_us = clock_mono_us() - s->granted_us;
	copy_text(e.reason, sizeof e.reason, reason);
	s->worker->counters.bytes_up += s->up.bytes;
	s->worker->counters.bytes_down += s->down.bytes;
	if (!s->unrecorded)
		record_event(s->worker->recording, &e, NULL);
	s->granted = false;
	session_free(s, reset);
}
