/* What control asks of workers about the sessions that live, and what they answer: the bytes of these messages, and the filter that
 * tells which sessions are meant. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/name.h"
#include "common/wire.h"
#include "schema/audit_query.h"

enum steering_op {
	STEERING_LIST, /* all that match, in no order, a slice at a time, each when the one before has been asked after */
	STEERING_TOP,  /* those that stand first in an order */
	STEERING_END,  /* they are ended */
	STEERING_RECENT, /* no session: what happened lately, see gatewayd/worker/recent.h */
	STEERING_TAKEN, /* no session: answered once what was sent before has been taken */
	STEERING_SHOW,	/* the one that matches, and behind it what it consists of: flows, or who may come to a BIND */
	STEERING_OPS
};

enum steering_order { STEERING_BY_NOTHING, STEERING_BY_BYTES, STEERING_BY_AGE, STEERING_BY_RATE, STEERING_ORDERS };

/* "bytes", "age", "rate"; STEERING_ORDERS if text is none of them. */
enum steering_order steering_order_parse(const char *text);

#define STEERING_TOP_MAX 200
#define STEERING_RECENT_MAX 24 /* rows of a worker's answer */
#define STEERING_SHOW_MAX 400
#define STEERING_FILTER_MAX 4096
#define STEERING_REASON_MAX 220
#define STEERING_BLOCKS_MAX 64

struct steering_ask {
	uint64_t job;
	enum steering_op op;
	enum steering_order order;
	uint32_t limit;		      /* STEERING_TOP: 1 to STEERING_TOP_MAX */
	char filter[STEERING_FILTER_MAX]; /* a JSON object, see steering_filter() */
	char reason[STEERING_REASON_MAX + 1];
};

void steering_put_ask(struct wire_writer *w, const struct steering_ask *ask);
/* False: it is malformed; ask->job is what it says all the same. */
bool steering_get_ask(struct wire_reader *r, struct steering_ask *ask);

/* The head of an answer; rows follow. */
struct steering_answer {
	uint64_t job;
	bool last;
	bool refused;		       /* it is the last, because it is not understood, or too much is asked for at once */
	uint16_t rows;		       /* in this message */
	uint32_t matched;	       /* so far */
	uint64_t bytes_up, bytes_down; /* of those, so far */
};

/* The rows are counted as they are put: the head is written again over its place at the end. */
#define STEERING_ANSWER_BYTES 32
void steering_put_answer(struct wire_writer *w, const struct steering_answer *a);
bool steering_get_answer(struct wire_reader *r, struct steering_answer *a);

/* A session.  event: kind CHECKPOINT, of when it was accepted or granted.  STEERING_SHOW, behind it: kind FLOW_CHECKPOINT, a flow of
 * its association; OPEN, an address that may come to a BIND, and the rule that lets it. */
struct steering_row {
	struct audit_event event;
	char state[24];
	char claimed[AUDIT_TEXT_MAX + 1];
	int64_t idle_us;
	uint64_t rate; /* bytes a second, both ways, since it was looked at before */
	uint32_t flows; /* of a UDP association */
	uint64_t datagrams_up, datagrams_down; /* of a flow */
	bool inbound;		 /* a flow that its destination opened */
	struct endpoint listens; /* where a BIND waits for its peer; ADDR_NONE: it does not */
	uint32_t strangers;	 /* who came there and was not its peer */
};

void steering_put_row(struct wire_writer *w, const struct steering_row *row);
bool steering_get_row(struct wire_reader *r, struct steering_row *row);
/* The most that one takes. */
#define STEERING_ROW_MAX 2660

/* What a filter is held against.  NULL, ADDR_NONE and 0: not known, which matches nothing that is asked for. */
struct steering_facts {
	uint64_t session;
	const struct addr *client, *address;
	const char *user, *rule, *name, *listener;
	const char *const *groups; /* of the user */
	size_t ngroups;
	const char *country; /* of the address */
	int64_t began_us;    /* wall clock */
	const struct name *aliases; /* of the name */
	size_t naliases;
	uint16_t port;
	uint32_t revision;
};

/* Reads the keys that live sessions have: user, group, client, to, port, country, rule, revision, session, text, since_us, until_us
 * (when it began).  0, or -1 with *why. */
int steering_filter(const char *json, struct audit_filter *out, struct err *why);
bool steering_matches(const struct audit_filter *f, const struct steering_facts *x);
