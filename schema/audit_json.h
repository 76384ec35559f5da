/* Events and filters as JSON: what a reader streams to gatewayctl, and what gatewayctl asks.  One shape, made and read
 * here only; doc/gatewayctl.8 documents it for people who parse it. */
#pragma once

#include <jansson.h>

#include "schema/audit_query.h"

/* A new object, or NULL if memory is short.  Absent values have no key.  Texts are escaped (common/text.h): every byte
 * outside printable ASCII, and the backslash, is written \xNN.  "detail" is an object where the event has one. */
json_t *audit_event_json(uint64_t id, const struct audit_event *e);

/* "2026-11-20T19:30:01.123456Z" */
#define AUDIT_TIME_TEXT_MAX 40
const char *audit_time_text(int64_t time_us, char buf[AUDIT_TIME_TEXT_MAX]);

/* Reads {"user", "client", "to", "verdict", "event", "session": texts; "rule", "group", "text", "country": texts; "since_us",
 * "until_us", "limit", "revision", "port", "after", "id": integers; "order": "newest" or "oldest"}, each optional; any other
 * key or type is an error.  0, or -1 with *why. */
int audit_filter_json(const json_t *object, struct audit_filter *out, struct err *why);
