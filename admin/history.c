#include "config.h"

#include "admin/history.h"

#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/audit_ask.h"
#include "admin/format.h"
#include "admin/times.h"
#include "common/clock.h"

struct taking {
	struct history *history;
	struct past past;
};

static int take(const json_t *line, void *arg)
{
	struct taking *t = arg;
	int64_t count = format_number(line, "count");

	if (past_read(line, &t->past) == NULL)
		t->history->take(&t->past, (uint64_t)count, t->history->arg);
	else if (t->past.no_destination)
		t->history->undecided += (uint64_t)count;
	else
		t->history->refused_names += (uint64_t)count;
	return -1;
}

int history_read(struct history *h)
{
	json_t *request = json_object(), *edges = json_array();
	struct taking *t = calloc(1, sizeof *t);
	struct audit_end end;
	int code;

	if (t == NULL)
		abort();
	t->history = h;
	for (size_t i = 0; i < h->nedges; i++)
		json_array_append_new(edges, json_integer(h->edges[i]));
	json_object_set_new(request, "requests", edges);
	if (h->since_us != 0)
		json_object_set_new(request, "since_us", json_integer(h->since_us));
	if (h->until_us != 0)
		json_object_set_new(request, "until_us", json_integer(h->until_us));
	if ((h->user != NULL && json_object_set_new(request, "user", json_string(h->user)) != 0) ||
	    (h->group != NULL && json_object_set_new(request, "group", json_string(h->group)) != 0)) {
		code = admin_fail(ADMIN_USAGE, "a name is no UTF-8");
	} else {
		struct audit_question q = {.request = request, .dir = h->dir, .take = take, .arg = t};

		code = audit_ask(&q, &end);
	}
	json_decref(request);
	free(t);
	return code;
}

int history_time(const char *option, const char *text, bool end, int64_t *us)
{
	struct err why;

	return time_parse(text, clock_wall_us(), end, us, &why) == 0 ? 0 : admin_fail(-1, "%s: %s", option, why.text);
}
