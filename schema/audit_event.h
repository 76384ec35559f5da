/* One event of the audit, as it travels from the process that saw it to the recorder, and the bytes of that journey. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/name.h"
#include "common/wire.h"

enum audit_kind {
	AUDIT_OPEN,	    /* granted: durable before the client reads its success reply */
	AUDIT_CONNECTED,    /* which candidate answered */
	AUDIT_DENIED,	    /* by policy, guard, protocol or fault: reason says */
	AUDIT_ENDED,	    /* a session that was granted is over: bytes, duration, reason */
	AUDIT_LOGIN_FAILED, /* a log-in that was denied or could not be judged */
	AUDIT_POLICY,	    /* a revision took effect, or was refused */
	AUDIT_ADMIN,	    /* a command of an administrator */
	AUDIT_START,	    /* the gateway started */
	AUDIT_STOP,
	AUDIT_FLOW,	  /* a destination of a UDP association: durable before its first datagram leaves */
	AUDIT_FLOW_ENDED, /* bytes and datagrams both ways */
	AUDIT_CHECKPOINT, /* a session that goes on: its bytes so far */
	AUDIT_FLOW_CHECKPOINT,
	AUDIT_THROTTLE, /* log-ins of a user from a network, or all from it, must wait, or need no more */
	AUDIT_LOOK,	/* a command that changed nothing */
	AUDIT_KIND_COUNT
};

/* Stable words, as stored and shown: "open", "connected", "denied", "ended", "login-failed", "policy", ... */
const char *audit_kind_name(enum audit_kind kind);
/* AUDIT_KIND_COUNT if text names none. */
enum audit_kind audit_kind_parse(const char *text);
/* Events that say how much was carried, and for how long. */
bool audit_kind_tells_bytes(enum audit_kind kind);

#define AUDIT_TEXT_MAX 255
#define AUDIT_DETAIL_MAX 16384

/* Absent: empty text, ADDR_NONE, 0. */
struct audit_event {
	enum audit_kind kind;
	uint64_t session;    /* 0: not of a session */
	int64_t time_us;     /* wall clock when it happened */
	int64_t duration_us; /* so far, where bytes are told (audit_kind_tells_bytes()); monotonic */
	struct endpoint client;
	struct endpoint address;       /* destination address; the port is set also when only the name is known */
	uint64_t bytes_up, bytes_down; /* client to destination, and back */
	uint32_t revision;	       /* of the policy that decided; 0: none */
	char listener[64];
	char user[AUDIT_TEXT_MAX + 1];
	char method[16];  /* none, password, gssapi, socks4 */
	char command[16]; /* connect, bind, udp */
	char name[NAME_MAX_LEN +
		  1]; /* canonical destination name; or what the client sent, escaped, when it was refused */
	char rule[AUDIT_TEXT_MAX + 1];
	char reason[AUDIT_TEXT_MAX + 1];
	char detail[AUDIT_DETAIL_MAX + 1]; /* JSON object: candidate addresses with their rules, groups ...; or "" */
};

void audit_put_event(struct wire_writer *w, const struct audit_event *e);
/* False if a field is missing, too long or out of its range; *e is then not to be looked at. */
bool audit_get_event(struct wire_reader *r, struct audit_event *e);

/* "0123-4567-89AB-C": 13 characters of Crockford's base 32 in groups, as people read a session id to each other. */
#define AUDIT_SESSION_TEXT_MAX 17
const char *audit_session_text(uint64_t session, char buf[AUDIT_SESSION_TEXT_MAX]);
/* The reverse, forgiving about case, '-' and look-alikes; 0 if it is none. */
uint64_t audit_session_parse(const char *text);

/* The body of a RECORD message: who sends (a random incarnation a process life), its sequence (1, 2, 3 ...), the event.
 */
void audit_put_record(struct wire_writer *w, uint64_t incarnation, uint64_t sequence, const struct audit_event *e);
bool audit_get_record(struct wire_reader *r, uint64_t *incarnation, uint64_t *sequence, struct audit_event *e);
