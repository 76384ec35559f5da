/* BIND (RFC 1928 section 4): one connection back, from the peer that the request named and from nobody else.
 *
 *   grant durable -> first reply (where we listen) -> the peer comes -> asked of policy, recorded -> second reply -> relay
 *
 * The socket listens on the address that faces the peer, so that the first reply is true for it. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/recording.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/shared.h"
#include "gatewayd/worker/steer.h"
#include "gatewayd/worker/worker.h"

/* Strangers that get a row of their own; the rest are only turned away, and counted in the record of the end. */
#define STRANGERS_RECORDED 32

/* ---- listening ----------------------------------------------------------------------------------------------------- */

/* The local address that packets to the peer would leave from: a connected UDP socket knows, and sends nothing. */
static int local_address_towards(const struct addr *peer, struct addr *local)
{
	struct endpoint to = {.addr = *peer, .port = 9}, from;
	struct sockaddr_storage sa;
	socklen_t len = endpoint_to_sockaddr(&to, &sa);
	int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = -1;

	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&sa, len) == 0) {
		len = sizeof sa;
		if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0 && endpoint_from_sockaddr((struct sockaddr *)&sa, len, &from)) {
			*local = from.addr;
			rc = 0;
		}
	}
	close(fd);
	return rc;
}

/* Only peers of one family can reach one socket. */
static void keep_family(struct setup *setup, uint8_t family)
{
	size_t kept = 0;

	for (size_t i = 0; i < setup->ncandidates; i++)
		if (setup->candidates[i].address.family == family)
			setup->candidates[kept++] = setup->candidates[i];
	setup->ncandidates = kept;
}

static int listen_towards(struct session *s, const struct candidate *c)
{
	struct endpoint ep = {.addr = policy_rule_source(s->setup->rules->image, c->rule)};
	struct sockaddr_storage sa;
	socklen_t len;

	if (ep.addr.family == ADDR_NONE && local_address_towards(&c->address, &ep.addr) != 0)
		return -1;
	if (ep.addr.family != c->address.family) { /* a `source` that the peer can never reach */
		errno = EADDRNOTAVAIL;
		return -1;
	}
	len = endpoint_to_sockaddr(&ep, &sa);
	s->server_fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->server_fd < 0)
		return -1;
	relay_prepare(s->server_fd);
	if (bind(s->server_fd, (struct sockaddr *)&sa, len) != 0)
		return -1;
	len = sizeof sa;
	if (getsockname(s->server_fd, (struct sockaddr *)&sa, &len) != 0 ||
	    !endpoint_from_sockaddr((struct sockaddr *)&sa, len, &s->setup->bound))
		return -1;
	return 0;
}

/* Towards the first candidate that we can be reached from: a name may have addresses of a family that leads nowhere here. */
void bind_start(struct session *s)
{
	struct setup *setup = s->setup;
	enum reason failure = REASON_ADDRESS_TYPE; /* SOCKS4 can name but IPv4 */

	for (size_t i = 0; i < setup->ncandidates; i++) {
		uint8_t family = setup->candidates[i].address.family;

		if (s->protocol == PROTOCOL_SOCKS4 && family != ADDR_V4)
			continue;
		if (listen_towards(s, &setup->candidates[i]) == 0) {
			keep_family(setup, family);
			setup->connected = true;
			grant_finish(s);
			return;
		}
		failure = reason_worse(failure, reason_of_errno(errno));
		if (s->server_fd >= 0)
			close(s->server_fd);
		s->server_fd = -1;
	}
	grant_failed(s, failure);
}

/* ---- the peer -------------------------------------------------------------------------------------------------------- */

static void record_stranger(struct session *s, const struct endpoint *peer, const char *reason, const struct policy_decision *d)
{
	const struct ruleset *rules = s->worker->rules;
	static struct audit_event e;

	if (s->strangers++ >= STRANGERS_RECORDED)
		return;
	session_event(s, AUDIT_DENIED, &e);
	e.address = *peer;
	snprintf(e.reason, sizeof e.reason, "%s", reason);
	snprintf(e.rule, sizeof e.rule, "%s", d == NULL ? "" : policy_rule_name(rules->image, d->rule));
	e.revision = rules->revision;
	record_event(s->worker->recording, &e, NULL);
}

static bool is_named(const struct setup *setup, const struct addr *peer)
{
	for (size_t i = 0; i < setup->ncandidates; i++)
		if (addr_equal(&setup->candidates[i].address, peer))
			return true;
	return false;
}

static void peer_arrived(struct session *s, int fd, const struct endpoint *peer)
{
	static struct audit_event e;

	sock_forget(&s->server_sock);
	close(s->server_fd);
	s->server_fd = fd;
	if (sock_add(&s->worker->sockets, &s->server_sock, fd, false, s) != 0) {
		session_refuse(s, REASON_FAULT, "the peer cannot be waited for");
		return;
	}
	s->address = peer->addr;
	s->setup->bound = *peer; /* what the second reply tells */
	s->setup->recorded = false;
	session_set_state(s, SESSION_ACCEPTING);
	if (s->unrecorded) {
		s->setup->recorded = true;
		grant_finish(s);
		return;
	}
	session_event(s, AUDIT_CONNECTED, &e);
	e.address = *peer;
	detail_write_place(s, &e);
	s->setup->record = record_event(s->worker->recording, &e, &s->setup->waiter);
	if (s->setup->record == NULL) {
		session_refuse(s, REASON_AUDIT, "the audit does not keep up");
		return;
	}
	session_arm(s, (int64_t)s->worker->config->audit_timeout_ms * 1000);
}

static void on_peer(void *arg)
{
	struct session *s = arg;
	struct sockaddr_storage sa;
	socklen_t len = sizeof sa;
	struct endpoint peer = {0};
	struct policy_decision d;
	char reason[AUDIT_TEXT_MAX + 64], text[AUDIT_TEXT_MAX];
	int fd = accept4(s->server_fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		sock_took(&s->server_sock, fd, 0);
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			session_refuse(s, REASON_FAULT, "no descriptor for the peer");
		return;
	}
	if (!endpoint_from_sockaddr((struct sockaddr *)&sa, len, &peer) || !is_named(s->setup, &peer.addr)) {
		record_stranger(s, &peer, "bind: not the peer that the request named", NULL);
		close(fd);
		return;
	}
	authorise_peer(s, &peer.addr, &d);
	if (d.verdict != POLICY_ALLOW) {
		snprintf(reason, sizeof reason, "bind: policy denies this peer now: %s",
			 policy_decision_text(s->worker->rules->image, &d, text, sizeof text));
		record_stranger(s, &peer, reason, &d);
		close(fd);
		return;
	}
	const char *blocked = steer_blocked_peer(s, &peer.addr, policy_rule_name(s->worker->rules->image, d.rule));

	if (blocked != NULL) {
		close(fd);
		session_refuse(s, REASON_BLOCKED, blocked);
		return;
	}
	shared_set(&s->rule, policy_rule_name(s->worker->rules->image, d.rule));
	s->revision = s->worker->rules->revision;
	peer_arrived(s, fd, &peer);
}

/* The client waits, or speaks early, or leaves. */
static void on_client(void *arg)
{
	struct session *s = arg;
	struct setup *setup = s->setup;
	size_t room = sizeof setup->in - setup->in_len;
	ssize_t n = room == 0 ? 0 : sock_recv(&s->client_sock, setup->in + setup->in_len, room);

	if (room == 0)
		sock_on_read(&s->client_sock, NULL); /* the rest waits in the kernel */
	else if (n > 0)
		setup->in_len += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		session_end(s, "client left before its peer came", false);
}

static void arm(struct session *s, int64_t now_us)
{
	int64_t left = s->setup->bind_deadline_us - now_us, age_left = session_age_left_us(s, now_us);

	session_arm(s, age_left < left ? age_left : left);
}

/* The grant is durable: tell the client where its peer may come. */
void bind_wait(struct session *s)
{
	/* Nobody can reach the port before the grant is durable. */
	if (listen(s->server_fd, 4) != 0 || sock_add(&s->worker->sockets, &s->server_sock, s->server_fd, false, s) != 0) {
		session_refuse(s, REASON_FAULT, "cannot listen");
		return;
	}
	session_set_state(s, SESSION_BINDING);
	if (!handshake_reply(s, REASON_NONE, &s->setup->bound)) {
		session_end(s, "client left before its reply", true);
		return;
	}
	sock_on_read(&s->server_sock, on_peer);
	sock_on_read(&s->client_sock, on_client);
	int64_t now = clock_mono_us();

	s->setup->bind_deadline_us = now + (int64_t)s->worker->config->bind_timeout_ms * 1000;
	arm(s, now);
}

/* The timer may come early, since it counts from when its turn of the event loop began; then it is not known yet what is over. */
void bind_timeout(struct session *s)
{
	int64_t now = clock_mono_us();

	if (session_age_left_us(s, now) <= 0)
		session_end(s, session_age_reason(s, now), false);
	else if (s->setup->bind_deadline_us <= now)
		session_refuse(s, REASON_BIND_TIMEOUT, NULL);
	else
		arm(s, now);
}
