/* What administrators ask of the policy store, and how they put another revision into force.  Nothing here opens a file: a policy
 * and what it names come as one sealed block that the caller has read with its own rights, and go out the same way. */
#include "config.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/text.h"
#include "gatewayd/control/internal.h"

#define FOUND_MAX 20
#define CONFIRM_MAX_S (24 * 3600)
/* A page of the log; with the rest of a reply, a datagram holds it. */
#define PAGE_BYTES 48000

/* ---- changes ----------------------------------------------------------------------------------------------------------- */

static void on_changed(struct control *c, const struct policy_result *r, void *arg)
{
	struct client *asker = arg;
	json_t *reply;

	if (!admin_is_client(c, asker))
		return; /* it has left meanwhile */
	if (r->recorded)
		admin_on_record(asker);
	reply = json_pack("{s:b,s:I,s:I,s:I,s:o}", "ok", r->ok, "revision", (json_int_t)r->revision, "errors", (json_int_t)r->errors,
			  "warnings", (json_int_t)r->warnings, "diagnostics", notes_for_reply(r->notes));
	if (r->sessions != NULL) {
		json_object_set_new(reply, "ended", json_integer((json_int_t)r->ended));
		json_object_set(reply, "sessions", r->sessions);
		json_object_set_new(reply, "ends_too_many", json_boolean(r->ends_too_many));
	}
	if (r->pending != 0)
		json_object_set_new(reply, "pending", json_integer(r->pending));
	if (r->confirm_s != 0)
		json_object_set_new(reply, "confirm_s", json_integer(r->confirm_s));
	if (r->proposes)
		json_object_set_new(reply, "needs_approval", json_true());
	if (r->error != NULL)
		json_object_set_new(reply, "error", note_text(r->error, strlen(r->error)));
	admin_reply(asker, reply, -1);
}

/* What gatewayctl has found, who knows this machine's groups and its caller's files: kept with the revision like what is found here.
 * What is not in order is left out. */
static json_t *read_found(const json_t *given)
{
	static const char *const numbers[] = {"line", "column", "caret", "caret_len"};
	json_t *found = json_array(), *one;
	size_t i;

	json_array_foreach ((json_t *)(uintptr_t)given, i, one) {
		const char *code = json_string_value(json_object_get(one, "code"));
		const char *message = json_string_value(json_object_get(one, "message"));
		const char *file = json_string_value(json_object_get(one, "file"));
		const char *excerpt = json_string_value(json_object_get(one, "excerpt"));

		if (code == NULL || strlen(code) > 40 || strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(code) ||
		    message == NULL || strlen(message) > 500 || !text_is_plain(message) || json_array_size(found) == FOUND_MAX)
			continue;
		note_add(found, code, "%s", message);
		if (file == NULL || strlen(file) > 1000 || !text_is_plain(file))
			continue;
		json_t *note = json_array_get(found, json_array_size(found) - 1);

		json_object_set_new(note, "file", json_string(file));
		for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
			json_object_set_new(note, numbers[k], json_integer((uint32_t)json_integer_value(json_object_get(one, numbers[k]))));
		if (excerpt != NULL && strlen(excerpt) <= 500 && text_is_plain(excerpt))
			json_object_set_new(note, "excerpt", json_string(excerpt));
	}
	return found;
}

/* What orders have in common.  False: the request is malformed, and has been refused. */
static bool read_order(struct client *client, const json_t *request, struct policy_order *order)
{
	const json_t *if_revision = json_object_get(request, "if_revision"), *max_ended = json_object_get(request, "max_ended");
	const json_t *confirm = json_object_get(request, "confirm_s");
	const char *comment = json_string_value(json_object_get(request, "comment"));
	json_int_t active = json_integer_value(if_revision);

	order->author = *admin_author(client);
	order->strict = json_is_true(json_object_get(request, "strict"));
	order->dry_run = json_is_true(json_object_get(request, "dry_run"));
	order->yes = json_is_true(json_object_get(request, "yes"));
	order->max_ended = max_ended == NULL ? 0 : (uint64_t)json_integer_value(max_ended);
	order->check_active = if_revision != NULL;
	order->if_active = (uint32_t)active;
	order->bundle_fd = -1;
	if (max_ended != NULL && (!json_is_integer(max_ended) || json_integer_value(max_ended) < 0)) {
		admin_refuse(client, "max_ended is no number of sessions");
		return false;
	}
	if (confirm != NULL && (!json_is_integer(confirm) || json_integer_value(confirm) < 0 || json_integer_value(confirm) > CONFIRM_MAX_S)) {
		admin_refuse(client, "confirm_s is no number of seconds up to a day");
		return false;
	}
	order->confirm_s = (unsigned)json_integer_value(confirm);
	if (if_revision != NULL && (!json_is_integer(if_revision) || active < 0 || active > UINT32_MAX)) {
		admin_refuse(client, "if_revision is no number of a revision");
		return false;
	}
	if (comment != NULL && strlen(comment) >= sizeof order->comment) {
		admin_refuse(client, "the comment is longer than 1023 bytes");
		return false;
	}
	if (comment != NULL && !text_is_plain(comment)) {
		admin_refuse(client, "the comment holds a line end or another control character");
		return false;
	}
	if (comment != NULL)
		strcpy(order->comment, comment);
	order->found = read_found(json_object_get(request, "found"));
	return true;
}

void revisions_reload(struct client *client, const json_t *request)
{
	struct policy_order order = {.kind = ORDER_RELOAD, .force = json_is_true(json_object_get(request, "force"))};

	if (read_order(client, request, &order))
		policy_change(admin_control(client), &order, on_changed, client);
}

void revisions_apply(struct client *client, const json_t *request)
{
	struct policy_order order = {.kind = ORDER_APPLY};
	struct statfs fs;
	int fd;

	if (!read_order(client, request, &order))
		return;
	fd = admin_take_fd(client);
	/* Memory of the ordinary kind: a page of another may not be there when it is read. */
	if (fd < 0 || fstatfs(fd, &fs) != 0 || fs.f_type != TMPFS_MAGIC) {
		if (fd >= 0)
			close(fd);
		json_decref(order.found);
		admin_refuse(client, "the request brings no memory file with a policy");
		return;
	}
	order.bundle_fd = fd;
	policy_change(admin_control(client), &order, on_changed, client);
}

bool revisions_read_number(struct client *client, const json_t *request, uint32_t *id)
{
	const json_t *value = json_object_get(request, "revision");
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < 0 || number > UINT32_MAX) {
		admin_refuse(client, "revision is no number of a revision");
		return false;
	}
	*id = (uint32_t)number;
	return true;
}

void revisions_rollback(struct client *client, const json_t *request)
{
	struct policy_order order = {.kind = ORDER_ROLLBACK};

	if (!read_order(client, request, &order))
		return;
	if (revisions_read_number(client, request, &order.revision))
		policy_change(admin_control(client), &order, on_changed, client);
	else
		json_decref(order.found);
}

void revisions_approve(struct client *client, const json_t *request)
{
	struct policy_order order = {.kind = ORDER_APPROVE};

	if (!read_order(client, request, &order))
		return;
	if (revisions_read_number(client, request, &order.revision))
		policy_change(admin_control(client), &order, on_changed, client);
	else
		json_decref(order.found);
}

/* ---- questions --------------------------------------------------------------------------------------------------------- */

/* NULL: it never needed one. */
static json_t *describe_approval(const struct policy_revision *r)
{
	json_t *approval;

	if (r->base == 0)
		return NULL;
	approval = json_pack("{s:s,s:I,s:I,s:I}", "state", r->verdict[0] == '\0' ? "pending" : r->verdict, "base", (json_int_t)r->base,
			     "until_us", (json_int_t)r->proposed_until_us, "confirm_s", (json_int_t)(r->proposed_lasts_us / 1000000));
	if (r->verdict[0] != '\0') {
		json_object_set_new(approval, "time_us", json_integer(r->verdict_us));
		json_object_set_new(approval, "author_uid", json_integer(r->verdict_uid));
		json_object_set_new(approval, "author", note_text(r->verdict_by, strlen(r->verdict_by)));
		json_object_set_new(approval, "comment", note_text(r->verdict_comment, strlen(r->verdict_comment)));
	}
	return approval;
}

json_t *revisions_describe(const struct policy_revision *r, uint32_t active)
{
	char hash[2 * POLICY_HASH_BYTES + 1];
	json_t *one, *approval = describe_approval(r);

	for (size_t i = 0; i < POLICY_HASH_BYTES; i++)
		snprintf(hash + 2 * i, 3, "%02x", r->hash[i]);
	one = json_pack("{s:I,s:b,s:I,s:I,s:o,s:s,s:o,s:o,s:s,s:I,s:I,s:I}", "revision", (json_int_t)r->id, "active",
			 r->id == active, "time_us", (json_int_t)r->time_us, "author_uid", (json_int_t)r->author_uid, "author",
			 note_text(r->author, strlen(r->author)), "source", r->source, "comment",
			 note_text(r->comment, strlen(r->comment)), "name", note_text(r->name, strlen(r->name)), "hash", hash,
			 "bytes", (json_int_t)r->len, "files", (json_int_t)r->nfiles, "files_bytes", (json_int_t)r->files_bytes);
	if (r->trial_until_us != 0)
		json_object_set_new(one, "trial",
				    json_pack("{s:I,s:s}", "until_us", (json_int_t)r->trial_until_us, "state",
					      r->confirmed_us != 0 ? "confirmed" : r->id == active ? "pending" : "over"));
	if (approval != NULL)
		json_object_set_new(one, "approval", approval);
	return one;
}

bool revisions_page_add(struct revisions_page *page, const struct policy_revision *r)
{
	json_t *one = revisions_describe(r, page->active);
	size_t size = json_dumpb(one, NULL, 0, JSON_COMPACT | JSON_ENSURE_ASCII) + 1;

	page->more = size > PAGE_BYTES - page->bytes;
	if (page->more) {
		json_decref(one);
		return false;
	}
	page->bytes += size;
	json_array_append_new(page->revisions, one);
	return true;
}

static bool on_row(const struct policy_revision *r, void *arg)
{
	return revisions_page_add(arg, r);
}

void revisions_log(struct client *client, const json_t *request)
{
	struct policy_store *store = admin_control(client)->policy.store;
	json_int_t before = json_integer_value(json_object_get(request, "before"));
	json_int_t limit = json_integer_value(json_object_get(request, "limit"));
	struct revisions_page page = {0};
	struct err why;

	if (before < 0 || before > UINT32_MAX || limit < 0 || limit > 1000000) {
		admin_refuse(client, "before or limit is out of range");
		return;
	}
	page.revisions = json_array();
	if (policy_store_active(store, &page.active, &why) != 0 ||
	    policy_store_list(store, (uint32_t)before, (unsigned)limit, on_row, &page, &why) != 0) {
		json_decref(page.revisions);
		admin_refuse(client, why.text);
		return;
	}
	admin_reply(client, json_pack("{s:b,s:o,s:b}", "ok", 1, "revisions", page.revisions, "more", page.more), -1);
}

/* ---- a whole revision ---------------------------------------------------------------------------------------------------
 * Which may be large: the keeper reads it, for all who ask for it meanwhile. */

struct asking {
	TAILQ_ENTRY(asking) next;
	uint64_t client; /* its number */
	uint32_t id;
};

void revisions_all_read(struct control *c)
{
	if (c->policy.fetched != 0)
		close(c->policy.fetched_fd);
	c->policy.fetched = 0;
}

/* What the gateway listens on: no policy opens that. */
static json_t *own_ports(const struct config *config)
{
	json_t *ports = json_array();

	for (size_t k = 0; k < config->nlisteners; k++)
		for (size_t i = 0; i < config->listeners[k].naddresses; i++)
			json_array_append_new(ports, json_integer(config->listeners[k].addresses[i].port));
	return ports;
}

/* What it was checked with, and whether it is on trial, may have changed since it was fetched. */
static void give(struct client *client, uint32_t id, int bundle)
{
	struct control *c = admin_control(client);
	struct policy_revision *r = malloc(sizeof *r);
	struct err why = {"out of memory"};
	char *checks = NULL;
	int rc = r == NULL ? -1 : policy_store_get(c->policy.store, id, r, NULL, &checks, &why);
	int fd = rc == 1 ? fcntl(bundle, F_DUPFD_CLOEXEC, 0) : -1;

	if (rc == 1 && fd < 0)
		err_set(&why, "gatewayd is out of descriptors");
	if (rc == 0)
		err_set(&why, "there is no revision %u", id);
	if (fd < 0)
		admin_refuse(client, why.text);
	else
		admin_reply_and_linger(client,
				       json_pack("{s:b,s:o,s:o,s:o}", "ok", 1, "revision", revisions_describe(r, c->policy.revision), "checks",
						 note_text(checks, strnlen(checks, 8192)), "own_ports", own_ports(c->child->config)),
				       fd);
	free(checks);
	free(r);
}

static void on_fetched(struct control *c, struct keeper_answer *answer, void *arg);

static void fetch_next(struct control *c)
{
	const struct asking *first = TAILQ_FIRST(&c->policy.askings);

	if (first == NULL || c->policy.fetching)
		return;
	c->policy.fetching = true;
	keeper_read(c, first->id, false, on_fetched, NULL);
}

/* Takes away whoever asked for a revision; NULL: nobody does any more who is still there. */
static struct client *next_for(struct control *c, uint32_t id)
{
	struct asking *a, *following;
	struct client *client = NULL;

	for (a = TAILQ_FIRST(&c->policy.askings); a != NULL && client == NULL; a = following) {
		following = TAILQ_NEXT(a, next);
		if (a->id != id)
			continue;
		client = admin_find_client(c, a->client);
		TAILQ_REMOVE(&c->policy.askings, a, next);
		c->policy.nasking--;
		free(a);
	}
	return client;
}

static void on_fetched(struct control *c, struct keeper_answer *answer, void *arg)
{
	uint32_t id = TAILQ_FIRST(&c->policy.askings)->id;
	struct client *client;

	(void)arg;
	c->policy.fetching = false;
	if (answer->rc == 0 && answer->fd >= 0) {
		revisions_all_read(c);
		c->policy.fetched = id;
		c->policy.fetched_fd = answer->fd;
		answer->fd = -1;
	}
	while ((client = next_for(c, id)) != NULL)
		if (c->policy.fetched == id)
			give(client, id, c->policy.fetched_fd);
		else
			admin_refuse(client, answer->rc == 0 ? "the keeper of the policy store sent no revision" : answer->why.text);
	if (c->unread == 0)
		revisions_all_read(c);
	fetch_next(c);
}

void revisions_get(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);
	struct asking *a;
	uint32_t id;

	if (!revisions_read_number(client, request, &id))
		return;
	if (!admin_may_linger(client)) {
		admin_refuse(client, "too many have asked for a revision and not read it yet: try again later");
		return;
	}
	if (id == 0)
		id = c->policy.revision;
	if (id != 0 && c->policy.fetched == id) {
		give(client, id, c->policy.fetched_fd);
		return;
	}
	a = malloc(sizeof *a);
	if (a == NULL) {
		admin_refuse(client, "gatewayd is out of memory");
		return;
	}
	*a = (struct asking){.client = admin_number(client), .id = id};
	TAILQ_INSERT_TAIL(&c->policy.askings, a, next);
	c->policy.nasking++;
	fetch_next(c);
}

void revisions_head(struct client *client, const json_t *request)
{
	const struct control *c = admin_control(client);

	(void)request;
	admin_reply(client,
		    json_pack("{s:b,s:I,s:b}", "ok", 1, "revision", (json_int_t)c->policy.revision, "groups_file",
			      c->child->config->pam_groups_file[0] != '\0'),
		    -1);
}
