#include "config.h"

#include "gatewayd/worker/gss.h"

#include <errno.h>
#include <gssapi/gssapi_ext.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "auth/gss.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/worker/gss_frame.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

/* What the client may have sent beyond one whole message. */
#define WAITING_MAX (GSS_FRAME_MAX + RELAY_BUFFER)

struct gss {
	struct session *session;
	gss_ctx_id_t context;
	enum protection protection;
	bool agreed; /* on the protection */
	bool ordered; /* the context tells what is repeated, missing, or out of its place */
	bool dce;    /* of DCE style: libkrb5 opens and makes its messages in copies only */
	int64_t expires_us;
	char *principal;
	uint64_t overhead;
	/* Bytes of the client that are not opened yet, from off on; NULL while there are none. */
	uint8_t *in;
	size_t off, len, size;
	/* What they are counted for while there are any: in the handshake what they take, afterwards what they may take. */
	size_t counted;
	TAILQ_ENTRY(gss) shaking;
	bool relays;
	bool waits; /* for a whole message, in the kernel */
};

void gss_prepare(const char *krb5_conf)
{
	static krb5_context kept; /* as long as it lives, so does what libkrb5 has read of its configuration */
	gss_OID_set mechs = GSS_C_NO_OID_SET;
	OM_uint32 minor;

	struct err why;

	if (gss_use_krb5_conf(krb5_conf, &why) != 0)
		log_error("%s: GSSAPI log-ins will fail", why.text);
	else if (krb5_init_context(&kept) != 0)
		log_error("%s is not readable, or not valid: GSSAPI log-ins will fail", krb5_conf);
	gss_indicate_mechs(&minor, &mechs);
	gss_release_oid_set(&minor, &mechs);
}

/* ---- waiting bytes ------------------------------------------------------------------------------------------------ */

/* Counts what g keeps as `bytes`; 0: it keeps none any more. */
static void count(struct gss *g, size_t bytes)
{
	struct worker *w = g->session->worker;
	size_t *all = g->relays ? &w->gss_relaying_bytes : &w->gss_shaking_bytes;

	if (!g->relays && g->counted == 0 && bytes > 0)
		TAILQ_INSERT_TAIL(&w->gss_shaking, g, shaking);
	else if (!g->relays && g->counted > 0 && bytes == 0)
		TAILQ_REMOVE(&w->gss_shaking, g, shaking);
	*all = *all - g->counted + bytes;
	g->counted = bytes;
}

static void give_back(struct session *s)
{
	struct gss *g = s->gss;

	if (g->in == NULL)
		return;
	explicit_bzero(g->in, g->size);
	free(g->in);
	count(g, 0);
	g->in = NULL;
	g->off = g->len = g->size = 0;
}

void gss_forget_bytes(struct session *s)
{
	if (s->gss != NULL)
		give_back(s);
}

/* The request is there: what came with it is kept even if others keep much. */
static void leave_handshake(struct session *s)
{
	struct gss *g = s->gss;

	count(g, 0);
	g->relays = true;
	count(g, g->in == NULL ? 0 : WAITING_MAX);
}

/* Others in the handshake give way, until `more` fit in. */
static void make_room(struct gss *g, size_t more)
{
	struct worker *w = g->session->worker;

	while (w->gss_shaking_bytes + more > GSS_SHAKING_BYTES) {
		struct gss *oldest = TAILQ_FIRST(&w->gss_shaking);

		if (oldest == g)
			oldest = TAILQ_NEXT(g, shaking);
		if (oldest == NULL)
			return; /* it alone has not that much */
		session_turn_away(oldest->session, REASON_LIMIT,
				  "GSSAPI clients have sent too much of messages that are not whole, and this one's waited for longest");
	}
}

/* Room for more bytes behind those that wait. */
static int reserve(struct session *s, size_t more, struct err *why)
{
	struct gss *g = s->gss;
	size_t size = g->size == 0 ? 4096 : g->size;
	uint8_t *bigger;

	if (g->off > 0 && g->in != NULL) {
		memmove(g->in, g->in + g->off, g->len);
		g->off = 0;
	}
	if (g->len + more > WAITING_MAX)
		return err_set(why, "more bytes than a message has");
	while (size < g->len + more)
		size *= 2;
	if (size == g->size)
		return 0;
	if (!g->relays)
		make_room(g, size - g->size);
	bigger = malloc(size);
	if (bigger == NULL)
		return err_set(why, "out of memory");
	if (g->in != NULL) {
		memcpy(bigger, g->in, g->len);
		explicit_bzero(g->in, g->size);
		free(g->in);
	}
	g->in = bigger;
	g->size = size;
	count(g, g->relays ? WAITING_MAX : size);
	return 0;
}

int gss_take(struct session *s, uint8_t *data, size_t len, struct err *why)
{
	if (len == 0)
		return 0;
	if (reserve(s, len, why) != 0)
		return -1;
	memcpy(s->gss->in + s->gss->len, data, len);
	s->gss->len += len;
	return 0;
}

static void wait_for_bytes(struct session *s, size_t n)
{
	int bytes = (int)n;

	setsockopt(s->client_fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
	s->gss->waits = n > 1;
}

static bool client_has_finished(const struct session *s)
{
	struct pollfd p = {.fd = s->client_fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0;
}

/* How much the kernel has from the client, also behind an urgent byte, where a peek ends (TCP_INQ of tcp(7); the sandbox has no ioctl). */
static size_t bytes_there(const struct session *s)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	uint8_t unused;
	struct iovec iov = {.iov_base = &unused, .iov_len = sizeof unused};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	const struct cmsghdr *c;
	int one = 1, n = 0;

	if (setsockopt(s->client_fd, IPPROTO_TCP, TCP_INQ, &one, sizeof one) != 0 || recvmsg(s->client_fd, &msg, MSG_PEEK) <= 0)
		return 0;
	c = CMSG_FIRSTHDR(&msg);
	if (c != NULL && c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_CM_INQ && c->cmsg_len == CMSG_LEN(sizeof n))
		memcpy(&n, CMSG_DATA(c), sizeof n);
	return n > 0 ? (size_t)n : 0;
}

/* A read ends before an urgent byte, though there is more. */
static ssize_t take_whole(const struct session *s, uint8_t *buffer, size_t want)
{
	ssize_t n = recv(s->client_fd, buffer, want, 0);
	size_t got = 0;

	while (n > 0 && (got += (size_t)n) < want)
		n = recv(s->client_fd, buffer + got, want - got, 0);
	return got > 0 ? (ssize_t)got : n;
}

/* One message once it is whole: until then the kernel keeps it, and wakes nobody. */
static ssize_t recv_whole(struct session *s, uint8_t *buffer)
{
	ssize_t n = recv(s->client_fd, buffer, GSS_HEADER, MSG_PEEK);
	size_t want = GSS_HEADER;

	if (n <= 0)
		return n;
	if (n == GSS_HEADER && buffer[1] == GSS_DATA)
		want += (size_t)buffer[2] << 8 | buffer[3];
	n = recv(s->client_fd, buffer, want, MSG_PEEK);
	if (n > 0 && (size_t)n < want && !client_has_finished(s)) {
		bool there = bytes_there(s) >= want; /* an urgent byte hides it: the kernel would wake us again and again */

		if (!there)
			wait_for_bytes(s, want);
		/* One inside the header hides how long the message is: that waits for more to come. */
		if (!there || want == GSS_HEADER) {
			errno = EAGAIN;
			return -1;
		}
	}
	if (s->gss->waits)
		wait_for_bytes(s, 1);
	return take_whole(s, buffer, want);
}

ssize_t gss_recv(struct session *s, uint8_t *buffer, size_t size)
{
	struct gss *g = s->gss;

	if (g->in == NULL && s->worker->gss_relaying_bytes + WAITING_MAX > GSS_RELAYING_BYTES) {
		ssize_t n = recv_whole(s, buffer);

		if (n < 0)
			sock_took(&s->client_sock, n, size); /* behind a message there may be the next */
		return n;
	}
	if (g->waits)
		wait_for_bytes(s, 1);
	return sock_recv(&s->client_sock, buffer, size);
}

static void consume(struct session *s, size_t used)
{
	s->gss->off += used;
	s->gss->len -= used;
}

size_t gss_waiting(const struct session *s)
{
	return s->gss == NULL ? 0 : s->gss->len;
}

void gss_free(struct session *s)
{
	OM_uint32 minor;

	if (s->gss == NULL)
		return;
	give_back(s);
	if (s->gss->context != GSS_C_NO_CONTEXT)
		gss_delete_sec_context(&minor, &s->gss->context, GSS_C_NO_BUFFER);
	free(s->gss->principal);
	free(s->gss);
	s->gss = NULL;
}

/* ---- what others ask ---------------------------------------------------------------------------------------------- */

enum protection gss_protection(const struct session *s)
{
	return s->gss != NULL && s->gss->agreed ? s->gss->protection : PROTECTION_NONE;
}

bool gss_protects(const struct session *s)
{
	return gss_protection(s) != PROTECTION_NONE;
}

bool gss_reads(const struct session *s)
{
	return s->gss != NULL && (!s->gss->agreed || gss_protects(s));
}

int64_t gss_expires_us(const struct session *s)
{
	return s->gss == NULL || s->gss->expires_us == 0 ? INT64_MAX : s->gss->expires_us;
}

const char *gss_principal(const struct session *s)
{
	return s->gss == NULL ? NULL : s->gss->principal;
}

uint64_t gss_overhead(const struct session *s)
{
	return s->gss == NULL ? 0 : s->gss->overhead;
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static void describe(OM_uint32 major, OM_uint32 minor, struct err *why)
{
	gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
	OM_uint32 more = 0, ignored;
	char safe[100] = "", cause[140];

	if (major == GSS_S_COMPLETE) {
		err_set(why, "more than a message holds");
		return;
	}
	/* Order is told beside success. */
	if (major & (GSS_S_DUPLICATE_TOKEN | GSS_S_OLD_TOKEN)) {
		err_set(why, "a message of the client came twice");
		return;
	}
	if (major & (GSS_S_UNSEQ_TOKEN | GSS_S_GAP_TOKEN)) {
		err_set(why, "a message of the client is missing, or out of its place");
		return;
	}
	if (gss_display_status(&ignored, GSS_ROUTINE_ERROR(major), GSS_C_GSS_CODE, GSS_C_NO_OID, &more, &text) == GSS_S_COMPLETE)
		text_escape(text.value, text.length, safe, sizeof safe);
	gss_release_buffer(&ignored, &text);
	gss_describe(major, minor, cause, sizeof cause);
	err_set(why, "GSSAPI: %s (%s)", safe, cause);
}

static OM_uint32 unwrap_copy(struct gss *g, uint8_t *token, size_t len, uint8_t **plain, size_t *plain_len, bool *confidential,
			     OM_uint32 *minor)
{
	gss_buffer_desc in = {.length = len, .value = token}, out = GSS_C_EMPTY_BUFFER;
	OM_uint32 ignored, major;
	int conf = 0;

	major = gss_unwrap(minor, g->context, &in, &out, &conf, NULL);
	*plain = token;
	*plain_len = GSS_ERROR(major) || out.length > len ? 0 : out.length;
	*confidential = conf != 0;
	if (*plain_len > 0)
		memcpy(token, out.value, *plain_len);
	gss_release_buffer(&ignored, &out);
	return major;
}

/* Opens one token in its place. */
static OM_uint32 unwrap(struct gss *g, uint8_t *token, size_t len, uint8_t **plain, size_t *plain_len, bool *confidential,
			OM_uint32 *minor)
{
	gss_iov_buffer_desc iov[2] = {
		{.type = GSS_IOV_BUFFER_TYPE_STREAM, .buffer = {.length = len, .value = token}},
		{.type = GSS_IOV_BUFFER_TYPE_DATA},
	};
	gss_qop_t qop = GSS_C_QOP_DEFAULT;
	int conf = 0;
	OM_uint32 major;

	if (g->dce)
		return unwrap_copy(g, token, len, plain, plain_len, confidential, minor);
	major = gss_unwrap_iov(minor, g->context, &conf, &qop, iov, 2);

	*plain = iov[1].buffer.value;
	*plain_len = GSS_ERROR(major) ? 0 : iov[1].buffer.length;
	*confidential = conf != 0;
	return major;
}

/* The same with the rules of a stream. */
static int open_token(struct gss *g, uint8_t *token, size_t len, uint8_t **plain, size_t *plain_len, bool *confidential,
		      struct err *why)
{
	OM_uint32 minor, major = unwrap(g, token, len, plain, plain_len, confidential, &minor);

	if (major == GSS_S_COMPLETE)
		return 0;
	describe(major, minor, why);
	return -1;
}

int gss_open(struct session *s, uint8_t *data, size_t len, size_t *used, uint8_t **plain, size_t *plain_len, struct err *why)
{
	struct gss *g = s->gss;
	const uint8_t *token;
	size_t token_len;
	struct front_refusal refusal;
	bool confidential;

	switch (gss_read_frame(data, len, GSS_DATA, used, &token, &token_len, &refusal)) {
	case FRONT_MORE:
		return 0;
	case FRONT_REFUSE:
		return err_set(why, "%s", refusal.detail);
	case FRONT_DONE:
		break;
	}
	if (open_token(g, data + (token - data), token_len, plain, plain_len, &confidential, why) != 0)
		return -1;
	if (g->protection == PROTECTION_CONFIDENTIALITY && !confidential)
		return err_set(why, "a message without the confidentiality that was agreed on");
	return 1;
}

int gss_next(struct session *s, uint8_t **plain, size_t *plain_len, struct err *why)
{
	size_t used;
	int rc;

	if (s->gss->len == 0) {
		give_back(s); /* an idle session owns no buffer */
		return 0;
	}
	rc = gss_open(s, s->gss->in + s->gss->off, s->gss->len, &used, plain, plain_len, why);
	if (rc == 1)
		consume(s, used);
	return rc;
}

int gss_open_datagram(struct session *s, uint8_t *data, size_t len, uint8_t **plain, size_t *plain_len)
{
	const uint8_t *token;
	size_t used, token_len;
	struct front_refusal refusal;
	bool confidential;
	OM_uint32 minor, major;

	if (gss_read_frame(data, len, GSS_DATA, &used, &token, &token_len, &refusal) != FRONT_DONE || used != len)
		return -1;
	major = unwrap(s->gss, data + (token - data), token_len, plain, plain_len, &confidential, &minor);
	/* Datagrams may overtake each other and be lost, but none counts twice. */
	if (GSS_ERROR(major) || (major & (GSS_S_DUPLICATE_TOKEN | GSS_S_OLD_TOKEN)))
		return -1;
	return s->gss->protection == PROTECTION_CONFIDENTIALITY && !confidential ? -1 : 0;
}

static uint8_t *put(uint8_t *at, gss_buffer_t buffer)
{
	buffer->value = at;
	return at + buffer->length;
}

/* A library that makes a message and leaves it readable has not done what was asked. */
static void not_sealed(OM_uint32 major, OM_uint32 minor, bool readable, struct err *why)
{
	if (!GSS_ERROR(major) && readable)
		err_set(why, "the confidentiality that was agreed on cannot be had");
	else
		describe(major, minor, why);
}

static int seal_copy(struct gss *g, bool confidential, const uint8_t *data, size_t len, uint8_t *token, size_t *token_len,
		     struct err *why)
{
	gss_buffer_desc in = {.length = len, .value = (void *)(uintptr_t)data}, out = GSS_C_EMPTY_BUFFER;
	int conf = 0;
	OM_uint32 ignored, minor, major = gss_wrap(&minor, g->context, confidential, GSS_C_QOP_DEFAULT, &in, &conf, &out);
	int rc = GSS_ERROR(major) || out.length > GSS_TOKEN_MAX || (confidential && !conf) ? -1 : 0;

	if (rc == 0)
		memcpy(token, out.value, out.length);
	else
		not_sealed(major, minor, confidential && !conf, why);
	*token_len = out.length;
	gss_release_buffer(&ignored, &out);
	return rc;
}

static int seal_in_place(struct gss *g, bool confidential, const uint8_t *data, size_t len, uint8_t *token, size_t *token_len,
			 struct err *why)
{
	gss_iov_buffer_desc iov[4] = {
		{.type = GSS_IOV_BUFFER_TYPE_HEADER},
		{.type = GSS_IOV_BUFFER_TYPE_DATA, .buffer = {.length = len, .value = (void *)(uintptr_t)data}},
		{.type = GSS_IOV_BUFFER_TYPE_PADDING},
		{.type = GSS_IOV_BUFFER_TYPE_TRAILER},
	};
	int conf = 0;
	OM_uint32 minor, major = gss_wrap_iov_length(&minor, g->context, confidential, GSS_C_QOP_DEFAULT, NULL, iov, 4);
	uint8_t *at = token;

	*token_len = iov[0].buffer.length + len + iov[2].buffer.length + iov[3].buffer.length;
	if (!GSS_ERROR(major) && *token_len <= GSS_TOKEN_MAX) {
		for (int i = 0; i < 4; i++)
			at = put(at, &iov[i].buffer);
		memcpy(iov[1].buffer.value, data, len);
		major = gss_wrap_iov(&minor, g->context, confidential, GSS_C_QOP_DEFAULT, &conf, iov, 4);
		if (!GSS_ERROR(major) && (conf || !confidential))
			return 0;
		explicit_bzero(token, *token_len); /* it may be readable */
	}
	not_sealed(major, minor, confidential && !conf, why);
	return -1;
}

/* `kind` with conf as asked. */
static int seal(struct gss *g, enum gss_message kind, bool confidential, const uint8_t *data, size_t len, const uint8_t **frame,
		size_t *frame_len, struct err *why)
{
	static uint8_t out[GSS_FRAME_MAX];
	size_t token_len;

	if ((g->dce ? seal_copy : seal_in_place)(g, confidential, data, len, out + GSS_HEADER, &token_len, why) != 0)
		return -1;
	gss_write_header(out, kind, token_len);
	*frame = out;
	*frame_len = GSS_HEADER + token_len;
	return 0;
}

int gss_seal_datagram(struct session *s, const uint8_t *data, size_t len, const uint8_t **frame, size_t *frame_len, struct err *why)
{
	return seal(s->gss, GSS_DATA, s->gss->protection == PROTECTION_CONFIDENTIALITY, data, len, frame, frame_len, why);
}

int gss_encapsulate(struct session *s, const uint8_t *data, size_t len, const uint8_t **frame, size_t *frame_len, struct err *why)
{
	if (gss_seal_datagram(s, data, len, frame, frame_len, why) != 0)
		return -1;
	s->gss->overhead += *frame_len - len;
	return 0;
}

static bool send_all(const struct session *s, const uint8_t *data, size_t len)
{
	return send(s->client_fd, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

bool gss_say(struct session *s, const uint8_t *data, size_t len)
{
	const uint8_t *frame;
	size_t frame_len;
	struct err why;

	return gss_seal_datagram(s, data, len, &frame, &frame_len, &why) == 0 && send_all(s, frame, frame_len);
}

/* ---- the handshake --------------------------------------------------------------------------------------------------- */

static void advance(struct session *s);

void gss_begin(struct session *s)
{
	struct setup *setup = s->setup;
	struct err why;

	s->gss = calloc(1, sizeof *s->gss);
	session_set_state(s, SESSION_NEGOTIATING);
	if (s->gss != NULL)
		s->gss->session = s;
	if (s->gss == NULL || gss_take(s, setup->in, setup->in_len, &why) != 0) {
		session_refuse(s, REASON_FAULT, "out of memory");
		return;
	}
	explicit_bzero(setup->in, setup->in_len);
	setup->in_len = 0;
	advance(s);
}

void gss_receive(struct session *s)
{
	uint8_t *buffer = s->worker->buffer;
	struct err why;
	size_t room = WAITING_MAX - s->gss->len;
	ssize_t n = sock_recv(&s->client_sock, buffer, room < RELAY_BUFFER ? room : RELAY_BUFFER);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		session_drop(s);
	else if (gss_take(s, buffer, (size_t)n, &why) != 0)
		session_refuse(s, REASON_PROTOCOL, why.text);
	else
		advance(s);
}

/* The next message of the handshake: true with its token. */
static bool message(struct session *s, enum gss_message kind, size_t *used, const uint8_t **token, size_t *token_len)
{
	struct gss *g = s->gss;
	struct front_refusal why;
	enum front_result result = gss_read_frame(g->in + g->off, g->len, kind, used, token, token_len, &why);

	if (result == FRONT_REFUSE)
		session_refuse(s, why.reason, why.detail);
	return result == FRONT_DONE;
}

static void token(struct session *s)
{
	struct gss_ask ask = {.client = s->client.addr};
	size_t used;

	if (!message(s, GSS_TOKEN, &used, &ask.token, &ask.token_len))
		return;
	handshake_stop_reading(s);
	snprintf(ask.service, sizeof ask.service, "%s", s->listener->pam_service);
	snprintf(ask.listener, sizeof ask.listener, "%s", s->listener->name);
	session_set_state(s, SESSION_AUTHENTICATING);
	s->setup->waiting_since_us = clock_mono_us();
	if (authenticate_ask_gss(s, &ask) != 0) {
		session_refuse(s, REASON_LOGIN_FAILED, "the authenticator is not running");
		return;
	}
	consume(s, used);
	if (s->gss->len == 0)
		give_back(s);
	/* The master bounds each step; this only guards against its own end. */
	session_arm(s, ((int64_t)s->worker->config->gssapi_timeout_ms + (int64_t)s->worker->config->pam_timeout_ms * 2 + 5000) * 1000);
}

static bool send_token(struct session *s, const uint8_t *data, size_t len)
{
	uint8_t header[GSS_HEADER];
	struct iovec pieces[] = {{header, sizeof header}, {(void *)(uintptr_t)data, len}};
	struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};

	if (len == 0)
		return true;
	gss_write_header(header, GSS_TOKEN, len);
	/* In one: a second small segment would wait for the client's acknowledgement of the first, which that delays. */
	return sendmsg(s->client_fd, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof header + len);
}

static int import(struct session *s, const struct gss_answer *answer, struct err *why)
{
	gss_buffer_desc exported = {.length = answer->context_len, .value = (void *)(uintptr_t)answer->context};
	struct gss *g = s->gss;
	OM_uint32 minor, flags = 0, major = gss_import_sec_context(&minor, &exported, &g->context);

	if (GSS_ERROR(major)) {
		describe(major, minor, why);
		return -1;
	}
	if (gss_inquire_context(&minor, g->context, NULL, NULL, NULL, NULL, &flags, NULL, NULL) == GSS_S_COMPLETE) {
		g->dce = (flags & GSS_C_DCE_STYLE) != 0;
		g->ordered = (flags & GSS_C_REPLAY_FLAG) && (flags & GSS_C_SEQUENCE_FLAG);
	}
	g->principal = strdup(answer->principal);
	if (answer->lifetime_s != GSS_C_INDEFINITE) /* 0 is refused where it is read */
		g->expires_us = clock_mono_us() + (int64_t)answer->lifetime_s * 1000000;
	return g->principal == NULL ? err_set(why, "out of memory") : 0;
}

void gss_answered(struct session *s, const struct gss_answer *answer)
{
	struct err why;

	if (!answer->more && answer->answer.verdict == AUTH_OK && import(s, answer, &why) != 0) {
		log_error("the context of %s cannot be used: %s", answer->principal, why.text);
		session_refuse(s, REASON_LOGIN_FAILED, why.text);
		return;
	}
	if (!answer->more && !handshake_identified(s, &answer->answer, answer->principal)) {
		give_back(s); /* nothing is read any more */
		return;
	}
	s->setup->deadline_us += clock_mono_us() - s->setup->waiting_since_us;
	session_set_state(s, answer->more ? SESSION_NEGOTIATING : SESSION_PROTECTING);
	if (!send_token(s, answer->token, answer->token_len)) {
		session_drop(s);
		return;
	}
	handshake_wait_for_client(s);
	advance(s);
}

/* ---- which protection ------------------------------------------------------------------------------------------------ */

/* The octet that the client wants; -1 after a refusal. */
static int wanted(struct session *s, const uint8_t *token_bytes, size_t len, bool *plain)
{
	struct gss *g = s->gss;
	uint8_t *octet;
	size_t n;
	bool confidential;
	struct err why;

	*plain = s->listener->gssapi_nec && len == 1;
	if (*plain)
		return token_bytes[0];
	if (len == 1) {
		session_refuse(s, REASON_PROTOCOL, "the word about protection is not protected itself: gssapi-nec would allow it");
		return -1;
	}
	if (open_token(g, g->in + (token_bytes - g->in), len, &octet, &n, &confidential, &why) != 0) {
		session_refuse(s, REASON_PROTOCOL, why.text);
		return -1;
	}
	if (n != 1) {
		session_refuse(s, REASON_PROTOCOL, "the word about protection is not one octet");
		return -1;
	}
	return octet[0];
}

/* What we answer: no less than the listener demands; to a client that leaves it to us, all there is. */
static enum protection choose(const struct session *s, int octet)
{
	unsigned level = octet == PROTECTION_SELECTIVE ? PROTECTION_CONFIDENTIALITY : (unsigned)octet;

	return level < s->listener->gssapi_protection ? (enum protection)s->listener->gssapi_protection : (enum protection)level;
}

static bool answer_protection(struct session *s, bool plain)
{
	uint8_t octet = (uint8_t)s->gss->protection, bare[GSS_HEADER + 1];
	const uint8_t *frame = bare;
	size_t frame_len = sizeof bare;
	struct err why;

	gss_write_header(bare, GSS_PROTECTION, 1);
	bare[GSS_HEADER] = octet;
	if (!plain && seal(s->gss, GSS_PROTECTION, false, &octet, 1, &frame, &frame_len, &why) != 0)
		return false;
	return send_all(s, frame, frame_len);
}

/* Without protection, what follows is read as of any other client. */
static bool go_on_plain(struct session *s)
{
	struct gss *g = s->gss;
	struct setup *setup = s->setup;

	if (g->len > sizeof setup->in - setup->in_len) {
		session_refuse(s, REASON_PROTOCOL, "more bytes than a request has");
		return false;
	}
	if (g->len > 0)
		memcpy(setup->in + setup->in_len, g->in + g->off, g->len);
	setup->in_len += g->len;
	give_back(s);
	return true;
}

static void protection(struct session *s)
{
	struct gss *g = s->gss;
	const uint8_t *token_bytes;
	size_t used, len;
	bool plain;

	if (!message(s, GSS_PROTECTION, &used, &token_bytes, &len))
		return;
	int octet = wanted(s, token_bytes, len, &plain);

	if (octet < 0)
		return;
	if (octet > PROTECTION_SELECTIVE) {
		session_refuse(s, REASON_PROTOCOL, "the client wants a protection that there is not");
		return;
	}
	consume(s, used);
	g->protection = choose(s, octet);
	if (g->protection != PROTECTION_NONE && !g->ordered) {
		session_refuse(s, REASON_PROTOCOL,
			       "protection was agreed on, and the client's context tells no repeated or missing messages");
		return;
	}
	if (!answer_protection(s, plain)) {
		session_drop(s);
		return;
	}
	g->agreed = true;
	session_set_state(s, SESSION_REQUEST);
	if (gss_protects(s))
		advance(s);
	else if (go_on_plain(s))
		handshake_advance(s);
}

static bool request_is_whole(const struct setup *setup)
{
	struct front_refusal why;
	struct request unused;
	size_t used;

	return socks5_read_request(setup->in, setup->in_len, &used, &unused, &why) != FRONT_MORE;
}

/* The request, out of its messages, to where requests are read from; what is behind it is for the relay. */
static void request(struct session *s)
{
	struct setup *setup = s->setup;
	uint8_t *plain;
	size_t len;
	struct err why;
	int rc;

	while ((rc = gss_next(s, &plain, &len, &why)) == 1) {
		if (len > sizeof setup->in - setup->in_len) {
			session_refuse(s, REASON_PROTOCOL, "more bytes than a request has");
			return;
		}
		memcpy(setup->in + setup->in_len, plain, len);
		setup->in_len += len;
		if (request_is_whole(setup)) {
			leave_handshake(s);
			handshake_advance(s);
			return;
		}
	}
	if (rc < 0)
		session_refuse(s, REASON_PROTOCOL, why.text);
}

static void advance(struct session *s)
{
	switch (s->state) {
	case SESSION_NEGOTIATING:
		token(s);
		break;
	case SESSION_PROTECTING:
		protection(s);
		break;
	case SESSION_REQUEST:
		request(s);
		break;
	default:
		break;
	}
}
