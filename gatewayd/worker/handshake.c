/* From the first byte to a whole request.  The codecs are pure; this file reads, answers and keeps the deadline. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/text.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/shared.h"
#include "gatewayd/worker/socks4.h"
#include "gatewayd/worker/steer.h"
#include "gatewayd/worker/worker.h"

enum { METHOD_NONE = 0x00, METHOD_GSSAPI = 0x01, METHOD_PASSWORD = 0x02, METHOD_UNACCEPTABLE = 0xff };

/* Longest that a module may make a refused client wait. */
#define DELAY_MAX_US 15000000

static void advance(struct session *s);

/* A reply of a few bytes to a client whose send buffer is empty: it fits, or the client is gone. */
static bool say(struct session *s, const uint8_t *bytes, size_t len)
{
	return send(s->client_fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void consume(struct setup *setup, size_t used)
{
	memmove(setup->in, setup->in + used, setup->in_len - used);
	/* A log-in that has been read must not linger behind the moved bytes. */
	explicit_bzero(setup->in + setup->in_len - used, used);
	setup->in_len -= used;
}

static void on_readable(void *arg)
{
	struct session *s = arg;
	struct setup *setup = s->setup;
	ssize_t n;

	if (gss_reads(s)) {
		gss_receive(s);
		return;
	}
	n = sock_recv(&s->client_sock, setup->in + setup->in_len, sizeof setup->in - setup->in_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		/* A client that leaves before it asked for anything is no event worth a row. */
		session_drop(s);
		return;
	}
	setup->in_len += (size_t)n;
	advance(s);
}

void handshake_wait_for_client(struct session *s)
{
	sock_on_read(&s->client_sock, on_readable);
	session_arm(s, s->setup->deadline_us - clock_mono_us());
}

/* What the client says meanwhile waits in the kernel. */
void handshake_stop_reading(struct session *s)
{
	sock_on_read(&s->client_sock, NULL);
}

void handshake_start(struct session *s)
{
	session_set_state(s, SESSION_GREETING);
	s->setup->deadline_us = s->accepted_us + (int64_t)s->listener->handshake_timeout_ms * 1000;
	s->setup->method = METHOD_UNACCEPTABLE;
	handshake_wait_for_client(s);
	/* Often the greeting is there already. */
	on_readable(s);
}

void handshake_timeout(struct session *s)
{
	if (s->state == SESSION_GREETING && s->setup->in_len == 0)
		session_drop(s);
	else
		session_refuse(s, REASON_HANDSHAKE_TIMEOUT, session_state_name(s->state));
}

bool handshake_reply(struct session *s, enum reason reason, const struct endpoint *bound)
{
	uint8_t reply[FRONT_REPLY_MAX];
	size_t len = front_write_reply(s->protocol, reply, reason, bound);

	return gss_protects(s) ? gss_say(s, reply, len) : say(s, reply, len);
}

/* What the client reads when it is refused, in the terms of the state it is in. */
void handshake_refusal_reply(struct session *s, enum reason reason)
{
	static const struct endpoint nowhere;
	static const uint8_t no_method[2] = {5, METHOD_UNACCEPTABLE}, login_refused[2] = {1, 1}, aborted[2] = {1, 0xff};
	bool gssapi = s->gss != NULL; /* RFC 1961 section 3.8 */

	switch (s->state) {
	case SESSION_COUNTING:
		return;
	case SESSION_GREETING:
		if (reason == REASON_NO_METHOD)
			say(s, no_method, sizeof no_method);
		return;
	case SESSION_LOGIN:
	case SESSION_AUTHENTICATING:
	case SESSION_DELAYING:
		say(s, gssapi ? aborted : login_refused, sizeof aborted);
		return;
	case SESSION_NEGOTIATING:
	case SESSION_PROTECTING:
		say(s, aborted, sizeof aborted);
		return;
	default:
		handshake_reply(s, reason, &nowhere);
	}
}

/* Each stage: true if it moved on and the next may look at the bytes that are left. */

/* One port serves all versions: the first byte tells. */
static bool detect(struct session *s)
{
	if (s->protocol != PROTOCOL_UNKNOWN || s->setup->in_len == 0)
		return s->protocol != PROTOCOL_UNKNOWN;
	if (s->setup->in[0] == 4 && s->listener->socks4) {
		s->protocol = PROTOCOL_SOCKS4;
		s->setup->method = METHOD_NONE;
		session_set_state(s, SESSION_REQUEST);
	} else if (s->setup->in[0] == 5 && s->listener->socks5) {
		s->protocol = PROTOCOL_SOCKS5;
	} else {
		session_refuse(s, REASON_PROTOCOL, "the first byte is no SOCKS version that this listener serves");
		return false;
	}
	return true;
}

static bool greeting(struct session *s)
{
	struct setup *setup = s->setup;
	struct socks5_methods methods;
	struct front_refusal why;
	size_t used;

	if (!detect(s))
		return false;
	if (s->state != SESSION_GREETING)
		return true;
	switch (socks5_read_methods(setup->in, setup->in_len, &used, &methods, &why)) {
	case FRONT_MORE:
		return false;
	case FRONT_REFUSE:
		session_refuse(s, why.reason, why.detail);
		return false;
	case FRONT_DONE:
		break;
	}
	uint8_t reply[2] = {5, socks5_choose_method(&methods, s->listener->methods, s->listener->nmethods)};

	if (reply[1] == METHOD_UNACCEPTABLE) {
		session_refuse(s, REASON_NO_METHOD, NULL);
		return false;
	}
	consume(setup, used);
	setup->method = reply[1];
	if (!say(s, reply, sizeof reply)) {
		session_drop(s);
		return false;
	}
	if (reply[1] == METHOD_GSSAPI) {
		gss_begin(s);
		return false;
	}
	session_set_state(s, reply[1] == METHOD_PASSWORD ? SESSION_LOGIN : SESSION_REQUEST);
	return true;
}

static void ask_authenticator(struct session *s, const struct socks5_login *login)
{
	struct auth_ask ask;

	memset(&ask, 0, sizeof ask);
	strcpy(ask.service, s->listener->pam_service);
	strcpy(ask.listener, s->listener->name);
	ask.client = s->client.addr;
	memcpy(ask.user, login->user, login->user_len);
	memcpy(ask.password, login->password, login->password_len);
	session_set_state(s, SESSION_AUTHENTICATING);
	s->setup->waiting_since_us = clock_mono_us();
	int rc = authenticate_ask(s, &ask);

	auth_ask_wipe(&ask);
	if (rc != 0) {
		session_refuse(s, REASON_LOGIN_FAILED, "the authenticator is not running");
		return;
	}
	/* The master bounds queue and conversation; this only guards against its own end. */
	session_arm(s, ((int64_t)s->worker->config->pam_timeout_ms * 2 + 5000) * 1000);
}

static bool login(struct session *s)
{
	struct setup *setup = s->setup;
	struct socks5_login in;
	struct front_refusal why;
	char shown[AUTH_TEXT_MAX + 1];
	size_t used;

	switch (socks5_read_login(setup->in, setup->in_len, &used, &in, &why)) {
	case FRONT_MORE:
		return false;
	case FRONT_REFUSE:
		session_refuse(s, why.reason, why.detail);
		return false;
	case FRONT_DONE:
		break;
	}
	handshake_stop_reading(s);
	s->user = shared_get(text_escape(in.user, in.user_len, shown, sizeof shown));
	const char *refused = auth_text_refused(in.user, in.user_len);

	if (refused == NULL)
		refused = auth_text_refused(in.password, in.password_len);
	if (refused != NULL || s->user == NULL) {
		session_refuse(s, REASON_LOGIN_DENIED, refused);
		return false;
	}
	ask_authenticator(s, &in);
	if (s->state == SESSION_AUTHENTICATING)
		consume(setup, used);
	return false;
}

static bool keep_groups(struct session *s, const struct auth_answer *answer)
{
	groups_put(&s->groups);
	if (answer->ngroups == 0)
		return true;
	s->groups = groups_get(&s->worker->group_lists, answer->groups, answer->ngroups);
	return s->groups != NULL;
}

bool handshake_identified(struct session *s, const struct auth_answer *answer, const char *shown)
{
	static const enum reason refusals[AUTH_VERDICTS] = {
		[AUTH_DENIED] = REASON_LOGIN_DENIED, [AUTH_FAILED] = REASON_LOGIN_FAILED, [AUTH_THROTTLED] = REASON_LOGIN_THROTTLED};
	struct setup *setup = s->setup;
	const char *user;

	if (answer->verdict != AUTH_OK) {
		if (s->user == NULL && shown != NULL && shown[0] != '\0')
			s->user = shared_get(shown);
		/* For the record, which is made when the delay is over. */
		setup->refusal_detail = strdup(answer->reason);
		setup->refusal = refusals[answer->verdict];
		session_set_state(s, SESSION_DELAYING);
		TAILQ_INSERT_TAIL(&s->worker->delaying, setup, delaying);
		setup->in_delaying = true;
		session_arm(s, answer->delay_us < DELAY_MAX_US ? answer->delay_us : DELAY_MAX_US);
		return false;
	}
	user = shared_get(answer->user);
	if (user == NULL || !keep_groups(s, answer)) {
		shared_put(&user);
		session_refuse(s, REASON_FAULT, "out of memory");
		return false;
	}
	shared_put(&s->user);
	s->user = user;
	return true;
}

void handshake_login_done(struct session *s, const struct auth_answer *answer)
{
	static const uint8_t success[2] = {1, 0};
	struct setup *setup = s->setup;

	if (!handshake_identified(s, answer, NULL))
		return;
	setup->deadline_us += clock_mono_us() - setup->waiting_since_us;
	session_set_state(s, SESSION_REQUEST);
	if (!say(s, success, sizeof success)) {
		session_drop(s);
		return;
	}
	handshake_wait_for_client(s);
	advance(s);
}

void handshake_delay_over(struct session *s)
{
	session_refuse(s, s->setup->refusal, s->setup->refusal_detail);
}

static void refuse_request(struct session *s, const struct front_refusal *why)
{
	char shown[NAME_MAX_LEN + 1];

	if (why->name != NULL)
		s->name = shared_get(text_escape(why->name, why->name_len, shown, sizeof shown));
	session_refuse(s, why->reason, why->detail);
}

static enum front_result read_request(struct session *s, size_t *used, struct front_refusal *why)
{
	struct setup *setup = s->setup;
	struct socks4_user claimed = {0};
	enum front_result result;

	if (s->protocol == PROTOCOL_SOCKS5)
		return socks5_read_request(setup->in, setup->in_len, used, &setup->request, why);
	result = socks4_read_request(setup->in, setup->in_len, used, &setup->request, &claimed, why);
	if (result == FRONT_MORE || claimed.len == 0)
		return result;
	s->claimed = strndup((const char *)claimed.text, claimed.len); /* policy is asked about these bytes */
	if (s->claimed != NULL)
		return result;
	*why = (struct front_refusal){.reason = REASON_FAULT, .detail = "out of memory"};
	return FRONT_REFUSE;
}

static bool request(struct session *s)
{
	struct setup *setup = s->setup;
	struct front_refusal why = {0};
	size_t used;

	switch (read_request(s, &used, &why)) {
	case FRONT_MORE:
		return false;
	case FRONT_REFUSE:
		s->command = setup->request.command;
		s->port = setup->request.port;
		handshake_stop_reading(s);
		refuse_request(s, &why);
		return false;
	case FRONT_DONE:
		break;
	}
	handshake_stop_reading(s);
	consume(setup, used); /* what is left is early data for the destination */
	s->command = setup->request.command;
	s->port = setup->request.port;
	if (setup->request.has_name)
		s->name = shared_get(setup->request.name.text);
	else
		s->address = setup->request.address;
	if (!(s->listener->commands & 1u << s->command))
		session_refuse(s, REASON_COMMAND, "this listener does not serve it");
	else if (!limits_ask_user(s))
		handshake_admitted(s);
	return false;
}

void handshake_admitted(struct session *s)
{
	bool udp = s->command == POLICY_UDP;
	/* What an association names is the client's own end, not a destination. */
	const char *why = steer_blocked(s, udp ? NULL : s->name, udp ? NULL : &s->address, udp ? 0 : s->port, NULL, NULL, 0);

	if (why != NULL) {
		session_refuse(s, REASON_BLOCKED, why);
		return;
	}
	if (udp)
		grant_association(s);
	else
		authorise_request(s);
}

static void advance(struct session *s)
{
	bool more = true;

	while (more)
		switch (s->state) {
		case SESSION_GREETING:
			more = greeting(s);
			break;
		case SESSION_LOGIN:
			more = login(s);
			break;
		case SESSION_REQUEST:
			more = request(s);
			break;
		default:
			return;
		}
}

void handshake_advance(struct session *s)
{
	advance(s);
}
