/* The revision in force, and how another takes its place.
 *
 *   start, reload   tables, if a database changed -> the policy file's text -> is it news? -+
 *   apply           policy and files, as the caller read them -----------------------------+-> compile -> store -> workers
 *   rollback        policy and files of an older revision ---------------------------------+
 *   approve         policy and files of a revision that was proposed ----------------------+
 *
 * Before apply, rollback and approve store anything, the workers try the image against the sessions that live: what would end more
 * of them than was ordered is refused.  Where changes need approval, a change ends with the store, as a proposal: it is tried, too,
 * and what it would end is told.
 *
 * Any step that fails ends the change and changes nothing.  What runs, also after a restart, is the store's active revision: once
 * a revision is stored it rules, whatever happens to this process.  There is one change at a time; dry runs of apply and rollback
 * share nothing with it, and go on beside it. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/control/internal.h"
#include "policy/bundle.h"

/* Each has a compiler of its own. */
#define TRIALS_MAX 2

struct change {
	struct control *control;
	struct policy_order order;
	policy_done *done;
	void *arg;
	const char *stage;    /* for status */
	bool file_awaited;    /* of the supervisor */
	bool renewal_awaited; /* of the GSSAPI process */
	struct sealed bytes;  /* what is compiled, and what bundle points into */
	struct bundle bundle;
	bool imported;        /* it is the policy file's text */
	bool proposes;        /* it is to wait for approval, */
	uint32_t pending;     /* and does, as this revision */
	bool ungated;         /* its expectations need not hold */
	char proposed_by[64]; /* ORDER_APPROVE */
	uint32_t revision;    /* of what is compiled; 0: it is news */
	json_t *notes;
	uint32_t errors, warnings;
	int source_fd;        /* what is compiled, for the keeper; -1: not yet */
	int image_fd;         /* compiled, not in force yet; -1: none */
	size_t rules;
	json_t *sessions;     /* that would end, the first of them; NULL: that was not asked */
	uint64_t ended;
	bool ends_too_many;
	int former_fd; /* the image that is replaced; held, so that no worker is the last to let go and has to free it */
	struct waiter recorded;
	struct record *record; /* that it is in force, while that is not durable */
	bool waiting;  /* for the workers to take it, and for the record */
	bool on_record; /* a row tells what came of it */
	bool storing;	/* the keeper has it, or had */
	bool abandoned; /* whoever ordered it has been told; it is held for what is still to come back to it */
	struct event late;
};

/* What was begun before a trial's end and is not being stored by then. */
#define TRIAL_OVER "revision %u was not confirmed in time, and the one before it returns: order this again when it has"

static const char *const sources[] = {[ORDER_RELOAD] = "file", [ORDER_APPLY] = "apply", [ORDER_ROLLBACK] = "rollback",
				      [ORDER_START] = "file"};

/* ---- the end ------------------------------------------------------------------------------------------------------------ */

/* One line: the first diagnostic without its excerpt. */
static void give_up(const struct change *ch, const char *error) __attribute__((noreturn));
static void give_up(const struct change *ch, const char *error)
{
	const json_t *first = json_array_get(ch->notes, 0);
	char why[1024], line[NOTE_LINE_MAX] = "";

	if (first != NULL)
		note_line(first, line, sizeof line);
	snprintf(why, sizeof why, "%s%s%.700s", error, first == NULL ? "" : ": ", line);
	child_unusable(ch->control->child, why);
}

/* Changes nothing, holds no tables: it need not wait for anybody, nor anybody for it. */
static bool is_trial(const struct policy_order *order)
{
	return order->dry_run && (order->kind == ORDER_APPLY || order->kind == ORDER_ROLLBACK || order->kind == ORDER_APPROVE);
}

static void tell(struct change *ch, const char *error)
{
	struct control *c = ch->control;
	struct policy_result result = {.ok = error == NULL,
				       .revision = c->policy.revision,
				       .pending = error == NULL ? ch->pending : 0,
				       .proposes = ch->proposes,
				       .confirm_s = ch->order.confirm_s,
				       .error = error,
				       .recorded = ch->on_record,
				       .notes = ch->notes,
				       .errors = ch->errors,
				       .warnings = ch->warnings,
				       .ends_too_many = ch->ends_too_many,
				       .ended = ch->ended,
				       .sessions = ch->sessions};

	ch->done(c, &result, ch->arg);
}

static void record_refused(struct change *ch, const char *error)
{
	struct control *c = ch->control;
	char text[AUDIT_TEXT_MAX], what[48] = "";

	if (ch->order.dry_run || (ch->order.unconfirmed && confirm_failed_before(c)))
		return;
	if (ch->order.kind == ORDER_APPROVE)
		snprintf(what, sizeof what, "approval of revision %u: ", ch->order.revision);
	snprintf(text, sizeof text, "refused: %s%s", what, error);
	ch->on_record = true;
	control_record(c, AUDIT_POLICY, &ch->order.author, c->policy.revision, text);
}

/* What it has compiled, and from what. */
static void let_go(struct change *ch)
{
	bundle_clear(&ch->bundle);
	sealed_unmap(&ch->bytes);
	ch->bytes = (struct sealed){0};
	if (ch->image_fd >= 0)
		close(ch->image_fd);
	if (ch->source_fd >= 0)
		close(ch->source_fd);
	ch->image_fd = ch->source_fd = -1;
}

static void release(struct change *ch)
{
	let_go(ch);
	json_decref(ch->notes);
	json_decref(ch->sessions);
	if (ch->order.bundle_fd >= 0)
		close(ch->order.bundle_fd);
	if (ch->former_fd >= 0)
		close(ch->former_fd);
	free(ch);
}

static void start_with_the_trial(struct change *ch, const char *error);

static void end(struct change *ch, const char *error)
{
	struct control *c = ch->control;

	if (error != NULL && ch->order.kind == ORDER_START && ch->order.unconfirmed) {
		start_with_the_trial(ch, error);
		return;
	}
	if (is_trial(&ch->order)) {
		c->policy.trials--;
	} else {
		c->policy.change = NULL;
		if (error == NULL && !ch->order.dry_run)
			tables_commit(c, &ch->order.author);
		else
			tables_discard(c);
	}
	if (error != NULL && ch->order.kind == ORDER_START)
		give_up(ch, error);
	if (error != NULL)
		record_refused(ch, error);
	record_forget(&ch->record);
	if (!is_trial(&ch->order) && !(ch->order.unconfirmed && error != NULL))
		confirm_look(c);
	if (!is_trial(&ch->order))
		approvals_look(c);
	tell(ch, error);
	release(ch);
}

static void fail(struct change *ch, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct change *ch, const char *format, ...)
{
	char text[700];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	end(ch, text);
}

/* ---- into force -------------------------------------------------------------------------------------------------------- */

static void send_image(struct peer *p)
{
	const struct policy_state *policy = &p->control->policy;
	int fd = policy->image_fd < 0 ? -1 : fcntl(policy->image_fd, F_DUPFD_CLOEXEC, 0);

	if (policy->image_fd < 0)
		return;
	p->awaited = true;
	if (fd < 0 || ipc_send(p->link, IPC_POLICY, &policy->revision, sizeof policy->revision, &fd, 1) != 0)
		policy_not_taken(p, policy->revision, fd < 0 ? strerror(errno) : "its link is broken, or full");
}

/* It stays awaited until it is gone. */
void policy_not_taken(struct peer *worker, uint32_t revision, const char *why)
{
	const struct policy_state *policy = &worker->control->policy;

	log_error("worker/%u cannot take revision %u and is ended: %s", (unsigned)worker->slot, revision, why);
	control_end_worker(worker);
	if (policy->change != NULL && revision == policy->revision)
		note_add(policy->change->notes, "worker-ended", "worker/%u could not take revision %u and was ended, with its sessions: %s",
			 (unsigned)worker->slot, revision, why);
}

void policy_send(struct control *c, struct peer *worker)
{
	(void)c;
	/* Tables first: the policy may speak of them. */
	tables_send(worker);
	send_image(worker);
}

/* ---- in force means: every worker decides by it, and the audit says so ------------------------------------------------- */

#define SETTLE_WAIT_S 5

static bool any_awaited(const struct control *c)
{
	const struct peer *p;

	LIST_FOREACH (p, &c->peers, next)
		if (p->awaited)
			return true;
	return false;
}

static bool is_settled(const struct change *ch)
{
	return ch->record == NULL && ch->control->forget_awaited == 0 && !any_awaited(ch->control);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct change *ch = arg;
	struct peer *p;

	(void)fd, (void)what;
	LIST_FOREACH (p, &ch->control->peers, next)
		if (p->awaited) {
			note_add(ch->notes, "worker-late", "worker/%u has not taken revision %u yet", (unsigned)p->slot,
				 ch->control->policy.revision);
			p->awaited = false;
		}
	if (ch->control->forget_awaited != 0)
		note_add(ch->notes, "authenticator-late", "the authenticator has not forgotten yet which log-ins it remembers");
	if (ch->record != NULL && ch->pending != 0)
		note_add(ch->notes, "unrecorded", "the audit does not hold yet that revision %u was proposed", ch->pending);
	else if (ch->record != NULL)
		note_add(ch->notes, "unrecorded", "the audit does not hold yet that revision %u is in force",
			 ch->control->policy.revision);
	end(ch, NULL);
}

static void settle(struct change *ch)
{
	struct timeval wait = {.tv_sec = SETTLE_WAIT_S};

	if (is_settled(ch)) {
		end(ch, NULL);
		return;
	}
	ch->stage = "settling";
	ch->waiting = true;
	evtimer_assign(&ch->late, ch->control->child->base, on_late, ch);
	evtimer_add(&ch->late, &wait);
}

static void settle_more(struct change *ch)
{
	if (ch != NULL && ch->waiting && is_settled(ch)) {
		evtimer_del(&ch->late);
		end(ch, NULL);
	}
}

void policy_taken(struct peer *worker)
{
	worker->awaited = false;
	settle_more(worker->control->policy.change);
}

void policy_forgotten(struct control *c)
{
	settle_more(c->policy.change);
}

static void on_recorded(struct waiter *waiter)
{
	struct change *ch = (struct change *)((char *)waiter - offsetof(struct change, recorded));

	ch->record = NULL;
	settle_more(ch);
}

#define BOTH_HANDS ", proposed by %.63s and approved by %.63s"

/* Whoever took the approval of a revision, or the confirmation of a trial, may have been killed before that was recorded. */
static void told_by_the_store(const struct change *ch, char *out, size_t size)
{
	struct policy_revision *r = malloc(sizeof *r);
	struct err why;
	int used = 0;

	out[0] = '\0';
	if (r != NULL && policy_store_get(ch->control->policy.store, ch->revision, r, NULL, NULL, &why) == 1) {
		if (r->base != 0)
			used = snprintf(out, size, BOTH_HANDS, r->author, r->verdict_by);
		if (r->confirmed_us != 0)
			snprintf(out + used, size - (size_t)used, ", confirmed by %.63s", r->confirmed_by);
	}
	free(r);
}

static void record_change(struct change *ch, uint32_t revision, const char *text)
{
	ch->recorded.durable = on_recorded;
	ch->on_record = true;
	ch->record = control_record_for(ch->control, AUDIT_POLICY, &ch->order.author, revision, text, &ch->recorded);
	if (ch->record == NULL)
		note_add(ch->notes, "unrecorded", "out of memory: the audit will not hold what became of revision %u", revision);
}

/* found: in the store, at a start.  Whoever put it there may have been killed before that was recorded. */
static void record_in_force(struct change *ch, bool found)
{
	struct control *c = ch->control;
	const char *comment = ch->order.comment;
	char text[768], by[256] = "", trial[64] = ""; /* the record cuts what is too long for it */

	if (found)
		told_by_the_store(ch, by, sizeof by);
	if (ch->order.kind == ORDER_APPROVE)
		snprintf(by, sizeof by, BOTH_HANDS, ch->proposed_by, ch->order.author.name);
	if (ch->order.confirm_s > 0)
		snprintf(trial, sizeof trial, ", to be confirmed within %u s", ch->order.confirm_s);
	snprintf(text, sizeof text, "revision %u is %sin force%s%s%s%.200s", ch->revision, found ? "found " : "", by, trial,
		 comment[0] == '\0' ? "" : ": ", comment);
	ch->on_record = true;
	/* Nobody waits for a start's answer, and the recorder may come later. */
	if (ch->order.kind == ORDER_START) {
		control_record(c, AUDIT_POLICY, &ch->order.author, ch->revision, text);
		return;
	}
	record_change(ch, ch->revision, text);
}

/* By a control before us, which may have been killed before that was recorded; and no more. */
static void record_was_in_force(struct change *ch, uint32_t revision)
{
	char text[320], by[256]; /* the record cuts what is too long for it */

	ch->revision = revision;
	told_by_the_store(ch, by, sizeof by);
	snprintf(text, sizeof text, "revision %u was in force before this start%s", revision, by);
	control_record(ch->control, AUDIT_POLICY, &ch->order.author, revision, text);
}

static void take_image(struct change *ch)
{
	struct policy_state *p = &ch->control->policy;
	struct peer *peer;
	struct stat st;

	tables_commit(ch->control, &ch->order.author);
	ch->former_fd = p->image_fd;
	p->image_fd = ch->image_fd;
	ch->image_fd = -1;
	p->revision = ch->revision;
	p->rules = ch->rules;
	p->image_bytes = fstat(p->image_fd, &st) == 0 ? (size_t)st.st_size : 0;
	p->switch_us = 0;
	p->loaded_us = clock_wall_us();
	json_decref(p->warnings);
	p->warnings = notes_lines(ch->notes);
	LIST_FOREACH (peer, &ch->control->peers, next)
		if (peer->role == ROLE_WORKER)
			send_image(peer);
}

/* It is stored, or was: from here on it rules. */
static void take_effect(struct change *ch, bool found)
{
	/* Whoever changes rules may have changed who is in which group, too. */
	if (ch->order.kind != ORDER_START || ch->order.unconfirmed)
		auth_forget_all(ch->control);
	take_image(ch);
	record_in_force(ch, found);
	if (ch->order.kind == ORDER_START)
		child_ready(ch->control->child);
	settle(ch);
}

/* It is stored, and decides nothing. */
static void wait_for_approval(struct change *ch, uint32_t revision)
{
	const char *comment = ch->order.comment;
	char text[AUDIT_TEXT_MAX];

	ch->pending = revision;
	snprintf(text, sizeof text, "revision %u is proposed, to take the place of revision %u%s%.160s", revision,
		 ch->control->policy.revision, comment[0] == '\0' ? "" : ": ", comment);
	record_change(ch, revision, text);
	settle(ch);
}

static void on_stored(struct control *c, struct keeper_answer *answer, void *arg)
{
	struct change *ch = arg;

	(void)c;
	if (answer->rc < 0) {
		fail(ch, "%s cannot be stored: %s", ch->order.kind == ORDER_APPROVE ? "the approval" : "the new revision", answer->why.text);
	} else if (answer->rc > 0 && ch->order.kind == ORDER_APPROVE) {
		fail(ch, "%s", answer->why.text);
	} else if (answer->rc == 0 && ch->proposes) {
		wait_for_approval(ch, answer->revision);
	} else if (answer->rc > 0) {
		fail(ch, "revision %u is in force, not %u: somebody else was faster", answer->revision, ch->order.if_active);
	} else {
		ch->revision = answer->revision;
		take_effect(ch, false);
	}
}

static void store_approval(struct change *ch)
{
	ch->stage = "storing";
	ch->storing = true;
	keeper_approve(ch->control,
		       &(struct policy_judgement){.revision = ch->order.revision,
						.author_uid = ch->order.author.uid,
						.author = ch->order.author.name,
						.comment = ch->order.comment,
						.time_us = clock_wall_us(),
						.lasts_us = (int64_t)ch->order.confirm_s * 1000000},
		       on_stored, ch);
}

static void put_into_force(struct change *ch)
{
	int64_t now = clock_wall_us(), within_us = (int64_t)ch->control->child->config->policy_approval_within_ms * 1000;
	struct err why;
	char *checks;
	int rc;

	if (confirm_is_over(ch->control) && !ch->order.unconfirmed) {
		fail(ch, TRIAL_OVER, ch->control->policy.revision);
		return;
	}
	if (ch->control->confirm.pending && !ch->order.unconfirmed && !ch->proposes)
		note_add(ch->notes, "unconfirmed", "revision %u was on trial, and nobody has confirmed it", ch->control->policy.revision);
	if (ch->revision != 0) {
		take_effect(ch, true);
		return;
	}
	if (ch->order.kind == ORDER_APPROVE) {
		store_approval(ch);
		return;
	}
	checks = notes_join(ch->notes);
	ch->stage = "storing";
	rc = keeper_add(ch->control,
			&(struct policy_new){
				.author_uid = ch->order.author.uid,
				.author = ch->order.author.name,
				.source = ch->order.unconfirmed ? "unconfirmed" : sources[ch->order.kind],
				.comment = ch->order.comment,
				.checks = checks == NULL ? "" : checks,
				.time_us = now,
				.lasts_us = (int64_t)ch->order.confirm_s * 1000000,
				.proposed_until_us = ch->proposes ? now + within_us : 0,
				.imported = ch->imported,
				.check_active = ch->order.check_active,
				.if_active = ch->order.if_active,
			},
			ch->source_fd, on_stored, ch, &why);
	free(checks);
	ch->storing = rc == 0;
	if (rc != 0)
		fail(ch, "the new revision cannot be stored: %s", why.text);
}

static void on_previewed(struct control *c, const struct preview_result *r, void *arg)
{
	struct change *ch = arg;

	(void)c;
	if (ch->abandoned) {
		release(ch);
		return;
	}
	json_array_extend(ch->notes, r->notes);
	ch->sessions = json_incref(r->sessions);
	ch->ended = r->ended;
	ch->ends_too_many = !ch->proposes && !ch->order.yes && r->ended > ch->order.max_ended;
	if (ch->order.dry_run)
		end(ch, NULL);
	else if (ch->ends_too_many)
		fail(ch, "%llu live sessions would end, of %llu that may", (unsigned long long)r->ended,
		     (unsigned long long)ch->order.max_ended);
	else if (r->unknown && !ch->order.yes && !ch->proposes)
		fail(ch, "it is not known how many live sessions would end (gatewayctl: --yes does not ask)");
	else
		put_into_force(ch);
}

/* What whoever ordered it has found as well. */
static bool is_noted(const json_t *notes, const json_t *note)
{
	static const char *const keys[] = {"code", "file", "line", "column"};
	const json_t *other;
	size_t i, same;

	json_array_foreach (notes, i, other) {
		for (same = 0; same < sizeof keys / sizeof *keys; same++)
			if (!json_equal(json_object_get(other, keys[same]), json_object_get(note, keys[same])))
				break;
		if (same == sizeof keys / sizeof *keys)
			return true;
	}
	return false;
}

static void try_or_take(struct change *ch)
{
	struct control *c = ch->control;

	if ((ch->order.kind == ORDER_APPLY || ch->order.kind == ORDER_ROLLBACK || ch->order.kind == ORDER_APPROVE || ch->proposes) &&
	    !ch->order.unconfirmed) {
		ch->stage = "previewing";
		preview_start(c, ch->image_fd, on_previewed, ch);
	} else if (ch->order.dry_run)
		end(ch, NULL);
	else
		put_into_force(ch);
}

#define STRICT_REFUSES "the policy has warnings, and --strict refuses those"

static void on_groups_told(struct control *c, const struct groups_found *found, void *arg)
{
	struct change *ch = arg;
	json_t *note;
	size_t i;

	(void)c;
	if (ch->abandoned) {
		release(ch);
		return;
	}
	/* Ahead of what may be many, and cut. */
	if (found->untold > 0)
		note_add(ch->notes, "groups-untold", "of %zu groups that the policy names it could not be told whether there are such%s%s",
			 found->untold, found->why == NULL ? "" : ": ", found->why == NULL ? "" : found->why);
	json_array_foreach (found->absent, i, note) {
		if (is_noted(ch->notes, note))
			continue;
		json_array_append(ch->notes, note);
		ch->warnings++;
	}
	if (ch->order.strict && json_array_size(found->absent) > 0)
		fail(ch, STRICT_REFUSES);
	else
		try_or_take(ch);
}

static void on_policy_compiled(struct control *c, struct compiled *result, void *arg)
{
	struct named_groups *groups = result->groups;
	struct change *ch = arg;

	if (ch->abandoned) {
		release(ch);
		return;
	}
	json_array_extend(ch->notes, result->notes);
	ch->errors = result->errors;
	ch->warnings += result->warnings;
	if (result->fd < 0 && ch->order.kind == ORDER_START && ch->revision != 0) {
		fail(ch, "revision %u, which the policy store says is in force, cannot be compiled (move %.200s/policy away to start "
			 "with the policy file)",
		     ch->revision, c->child->config->state_dir);
		return;
	}
	if (result->fd < 0) {
		fail(ch, result->errors == 0 && result->warnings > 0 ? STRICT_REFUSES : "the policy is not usable");
		return;
	}
	ch->image_fd = result->fd;
	result->fd = -1;
	ch->rules = result->rules;
	/* A start waits for nobody, and what returns from a trial was looked at before. */
	if (groups == NULL || groups->all == 0 || ch->order.kind == ORDER_START || ch->order.unconfirmed) {
		try_or_take(ch);
		return;
	}
	ch->stage = "looking for groups";
	result->groups = NULL;
	groups_ask(c, groups, on_groups_told, ch);
}

/* Takes over fd, a sealed bundle. */
static void compile_bundle(struct change *ch, int fd)
{
	/* Expectations gate what is new; what was accepted once always loads. */
	bool is_new = ch->revision == 0 && !ch->ungated && !ch->order.unconfirmed;
	unsigned flags = (is_new ? COMPILE_GATE : 0) |
			 (ch->order.strict ? COMPILE_STRICT : 0);
	struct err why;

	if (sealed_map(fd, BUNDLE_BYTES_MAX, &ch->bytes, &why) != 0 ||
	    bundle_read(ch->bytes.data, ch->bytes.len, &ch->bundle, &why) != 0) {
		close(fd);
		fail(ch, "%s", why.text);
		return;
	}
	ch->source_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (ch->source_fd < 0) {
		close(fd);
		fail(ch, "gatewayd is out of descriptors");
		return;
	}
	ch->stage = "compiling";
	compile_start(ch->control, IPC_COMPILE_POLICY, fd, flags, on_policy_compiled, ch);
}

/* ---- a stored revision ------------------------------------------------------------------------------------------------- */

struct collected {
	struct bundle_file files[BUNDLE_FILES_MAX];
	size_t count;
	bool failed;
};

static void collect(const struct policy_file *f, void *arg)
{
	struct collected *all = arg;
	char *name = strdup(f->name), *text = malloc(f->len + 1);

	if (name == NULL || text == NULL || all->count == BUNDLE_FILES_MAX) {
		free(name);
		free(text);
		all->failed = true;
		return;
	}
	memcpy(text, f->text, f->len);
	all->files[all->count++] = (struct bundle_file){name, text, f->len};
}

int policy_bundle_of(struct policy_store *store, uint32_t id, struct policy_revision *out, char **checks, struct err *why)
{
	static struct collected all;
	char *text = NULL;
	int rc = policy_store_get(store, id, out, &text, checks, why), fd = -1;

	if (rc != 1)
		return rc == 0 ? err_set(why, "there is no revision %u", id) : -1;
	all.failed = false;
	all.count = 0;
	if (out->name[0] == '\0')
		snprintf(out->name, sizeof out->name, "revision %u", id);
	collect(&(struct policy_file){out->name, text, out->len}, &all);
	free(text);
	if (policy_store_files(store, id, collect, &all, why) == 0) {
		if (all.failed)
			err_set(why, "out of memory for revision %u", id);
		else
			fd = bundle_seal(&(struct bundle){all.files, all.count}, why);
	}
	for (size_t i = 0; i < all.count; i++) {
		free((void *)(uintptr_t)all.files[i].name);
		free((void *)(uintptr_t)all.files[i].text);
	}
	if (fd < 0 && checks != NULL) {
		free(*checks);
		*checks = NULL;
	}
	return fd;
}

static void on_read(struct control *c, struct keeper_answer *answer, void *arg)
{
	struct change *ch = arg;
	int fd = answer->fd;

	if (ch->abandoned) {
		release(ch);
		confirm_look(c); /* what it was abandoned for waits for the keeper */
		return;
	}
	answer->fd = -1;
	if (answer->rc == 0 && fd >= 0) {
		compile_bundle(ch, fd);
		return;
	}
	if (fd >= 0)
		close(fd);
	fail(ch, "revision %u cannot be read from the policy store: %s", ch->order.revision, answer->why.text);
}

/* At a start, which nobody waits for but itself. */
static void compile_stored(struct change *ch, uint32_t id)
{
	struct policy_revision *revision = malloc(sizeof *revision);
	struct err why = {"out of memory"};
	int fd = revision == NULL ? -1 : policy_bundle_of(ch->control->policy.store, id, revision, NULL, &why);

	free(revision);
	if (fd < 0)
		fail(ch, "revision %u cannot be read from the policy store: %s", id, why.text);
	else
		compile_bundle(ch, fd);
}

/* ---- trials that were over before a start ------------------------------------------------------------------------------- */

/* Nobody is served any more by what was on trial until then: what returns is put into force first. */
static bool start_with_the_former(struct change *ch)
{
	struct control *c = ch->control;
	struct policy_order *order = &ch->order;
	struct policy_trial t;
	struct err why;
	int rc = policy_store_trial(c->policy.store, &t, &why);

	/* If it cannot be read, the end of the start tells so, and looks again. */
	if (rc != 1 || t.until_us > clock_wall_us())
		return false;
	log_warning("nobody confirmed revision %u in time: the gateway starts with revision %u", t.revision, t.previous);
	record_was_in_force(ch, t.revision);
	confirm_fill_order(order, &t);
	order->kind = ORDER_START;
	ch->revision = 0;
	compile_stored(ch, t.previous);
	return true;
}

/* It cannot be put into force: a gateway that does not start would be worse, and the rollback is tried again. */
static void start_with_the_trial(struct change *ch, const char *error)
{
	uint32_t active = ch->order.if_active;

	control_log_notes(ch->notes);
	log_error("revision %u cannot return: %s; the gateway starts with revision %u, and it is tried again", ch->order.revision,
		  error, active);
	let_go(ch);
	json_array_clear(ch->notes);
	ch->errors = ch->warnings = 0;
	ch->order = (struct policy_order){
		.kind = ORDER_START, .first = ch->order.first, .author = {ch->control->owner, "start"}, .bundle_fd = -1};
	ch->revision = active;
	compile_stored(ch, active);
}

/* ---- the policy file: is there something new? ---------------------------------------------------------------------------- */

static void compile_text(struct change *ch, const char *text, size_t len)
{
	struct bundle_file file = {ch->control->child->config->policy_file, text, len};
	struct err why;
	int fd = bundle_seal(&(struct bundle){&file, 1}, &why);

	ch->imported = true;
	if (fd < 0)
		fail(ch, "%s", why.text);
	else
		compile_bundle(ch, fd);
}

struct known {
	struct policy_import last;
	uint32_t active;
	uint8_t active_hash[POLICY_HASH_BYTES];
};

static int look_up(struct policy_store *store, struct known *k, struct err *why)
{
	struct policy_revision *r = calloc(1, sizeof *r);
	int rc = r == NULL ? err_set(why, "out of memory") : policy_store_active(store, &k->active, why);

	if (rc == 0)
		rc = policy_store_import(store, &k->last, why);
	if (rc == 0 && k->active != 0) {
		rc = policy_store_get(store, k->active, r, NULL, NULL, why) == 1 ? 0 : -1;
		memcpy(k->active_hash, r->hash, sizeof k->active_hash);
	}
	free(r);
	return rc;
}

/* The file is news, and is to be proposed: true if it need not be, or may not. */
static bool need_not_propose(struct change *ch, const uint8_t hash[POLICY_HASH_BYTES])
{
	struct control *c = ch->control;
	const char *file = c->child->config->policy_file;
	char text[AUDIT_TEXT_MAX];
	uint32_t rejected = 0;
	struct err why;

	ch->pending = approvals_find_import(c, hash);
	if (ch->pending != 0) {
		note_add(ch->notes, "unchanged", "%s has not changed since it was proposed as revision %u", file, ch->pending);
		return true;
	}
	if (!ch->order.force && policy_store_rejected_import(c->policy.store, hash, &rejected, &why) != 0) {
		log_error("whether the text was rejected before cannot be read: %s", why.text);
		rejected = 0;
	}
	if (rejected != 0) {
		note_add(ch->notes, "rejected", "%s was rejected as revision %u, and is not proposed again without --force", file,
			 rejected);
		return true;
	}
	/* Whoever wrote the file could approve it, too: the signal tells nobody's name but the gateway's owner's. */
	if (!ch->order.by_signal)
		return false;
	note_add(ch->notes, "not-proposed", "%s has changed, and waits for an administrator's `gatewayctl reload`, which proposes it",
		 file);
	snprintf(text, sizeof text, "%.160s has changed, and is not proposed by a signal: it waits for a reload", file);
	ch->on_record = true;
	control_record(c, AUDIT_POLICY, &ch->order.author, c->policy.revision, text);
	return true;
}

/* text: of the policy file; NULL if that cannot be read, at a start. */
static void compare_with_store(struct change *ch, const char *text, size_t len)
{
	struct control *c = ch->control;
	const char *file = c->child->config->policy_file;
	struct known k = {0};
	uint8_t hash[POLICY_HASH_BYTES];
	struct err why = {""};

	if (look_up(c->policy.store, &k, &why) != 0) {
		fail(ch, "the policy store cannot be read: %s", why.text);
		return;
	}
	policy_store_hash(text == NULL ? "" : text, len, hash);
	bool imported = k.last.revision != 0 && memcmp(hash, k.last.hash, sizeof hash) == 0;
	bool runs = k.active != 0 && memcmp(hash, k.active_hash, sizeof hash) == 0;
	bool news = text != NULL && !imported && !runs;

	if (ch->order.kind == ORDER_START && k.active != 0) {
		if (news)
			log_warning("%s differs from the text last imported; revision %u of the store runs until `gatewayctl reload%s`",
				    file, k.active, k.active == k.last.revision ? "" : " --force");
		if (start_with_the_former(ch))
			return;
		ch->revision = k.active;
		compile_stored(ch, k.active);
	} else if (k.active != 0 && !news && !ch->order.force) {
		note_add(ch->notes, "unchanged", runs ? "%s is what runs already, as revision %u"
						      : "%s has not changed since it was imported as revision %u",
			 file, runs ? k.active : k.last.revision);
		settle(ch);
	} else if (k.active != k.last.revision && k.active != 0 && !ch->order.force) {
		fail(ch,
		     "the store has moved on: revision %u is in force, the file was last imported as revision %u; --force "
		     "replaces it by the file",
		     k.active, k.last.revision);
	} else if (ch->proposes && need_not_propose(ch, hash)) {
		settle(ch);
	} else {
		compile_text(ch, text, len);
	}
}

/* Reads a whole file of at most max bytes; NULL with *why. */
static char *read_file(int fd, size_t max, size_t *len, struct err *why)
{
	struct stat st;
	char *text;
	size_t used = 0;

	if (fstat(fd, &st) != 0 || st.st_size < 0 || (uint64_t)st.st_size > max) {
		err_set(why, "the file is larger than %zu bytes", max);
		return NULL;
	}
	text = malloc((size_t)st.st_size + 1);
	while (text != NULL && used < (size_t)st.st_size) {
		ssize_t n = read(fd, text + used, (size_t)st.st_size - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break; /* it shrank while we read: the rest is what it has now */
		used += (size_t)n;
	}
	if (text == NULL) {
		err_set(why, "out of memory for a file of %lld bytes", (long long)st.st_size);
		return NULL;
	}
	text[used] = '\0';
	*len = used;
	return text;
}

static void on_policy_file(struct change *ch, int fd)
{
	struct err why;
	size_t len;
	char *text = read_file(fd, POLICY_TEXT_MAX, &len, &why);

	if (text == NULL)
		fail(ch, "policy-file %s: %s", ch->control->child->config->policy_file, why.text);
	else
		compare_with_store(ch, text, len);
	free(text);
}

static void on_policy_file_refused(struct change *ch, const char *why)
{
	uint32_t active = 0;
	struct err ignored;

	/* At a start, a stored policy needs no file. */
	if (ch->order.kind == ORDER_START && policy_store_active(ch->control->policy.store, &active, &ignored) == 0 && active != 0) {
		log_warning("%s; revision %u of the store runs", why, active);
		compare_with_store(ch, NULL, 0);
		return;
	}
	fail(ch, "%s", why);
}

void policy_file_message(struct control *c, struct ipc_message *m)
{
	struct change *ch = c->policy.change;
	struct wire_reader in = wire_reader_on(m->body, m->len);
	unsigned file = wire_get_u8(&in);
	bool opened = m->type == IPC_FILE_OPENED;
	char why[560] = "";

	if (!opened)
		wire_get_text(&in, why, sizeof why);
	if (!wire_done(&in) || (opened && m->nfds != 1))
		return;
	if (file == CONFIG_FILE_POLICY && c->policy.stale_files > 0) {
		c->policy.stale_files--;
	} else if (file != CONFIG_FILE_POLICY) {
		tables_file_message(c, file, opened ? &m->fds[0] : NULL, why);
	} else if (ch != NULL && ch->file_awaited) {
		ch->file_awaited = false;
		if (opened)
			on_policy_file(ch, m->fds[0]);
		else
			on_policy_file_refused(ch, why);
	}
}

/* ---- the beginning ----------------------------------------------------------------------------------------------------------- */

static void on_tables(struct control *c, void *arg)
{
	struct change *ch = arg;
	const char *fault = tables_fault(c);
	uint8_t file = CONFIG_FILE_POLICY;

	if (fault != NULL && ch->order.first) {
		fail(ch, "%s", fault);
		return;
	}
	tables_note_faults(c, ch->notes);
	ch->file_awaited = true;
	ipc_send(c->child->supervisor, IPC_FILE_OPEN, &file, sizeof file, NULL, 0);
}

/* Whatever keytab and krb5.conf hold now counts from here on; if that cannot be used, what they held before. */
static void renew_gssapi(struct change *ch)
{
	ch->renewal_awaited = ipc_send(ch->control->child->supervisor, IPC_GSSAPI_RENEW, NULL, 0, NULL, 0) == 0;
	if (!ch->renewal_awaited)
		tables_refresh(ch->control, on_tables, ch);
}

void policy_gssapi_renewed(struct control *c, struct ipc_message *m)
{
	struct change *ch = c->policy.change;
	struct wire_reader in = wire_reader_on(m->body, m->len);
	char fault[620];

	wire_get_text(&in, fault, sizeof fault);
	if (!wire_done(&in) || ch == NULL || !ch->renewal_awaited)
		return;
	ch->renewal_awaited = false;
	if (fault[0] != '\0')
		note_add(ch->notes, "gssapi-unchanged", "%s: GSSAPI log-ins go on with what was read before; mend that and reload again",
			 fault);
	tables_refresh(c, on_tables, ch);
}

/* What ran once can always be returned to, whatever its expectations say now; what nobody has approved never ran. */
static void begin_rollback(struct change *ch)
{
	struct policy_order *order = &ch->order;
	struct policy_revision *r = malloc(sizeof *r);
	struct err why = {"out of memory"};
	int rc = r == NULL ? -1 : policy_store_get(ch->control->policy.store, order->revision, r, NULL, NULL, &why);
	bool ruled = rc == 0 || (rc == 1 && policy_revision_ruled(r));

	free(r);
	if (!ruled && rc == 1) {
		fail(ch, "revision %u was never in force; `gatewayctl policy export` gives its text, to be applied", order->revision);
		return;
	}
	if (!ruled) {
		fail(ch, "revision %u cannot be read from the policy store: %s", order->revision, why.text);
		return;
	}
	ch->ungated = true;
	if (order->comment[0] == '\0')
		snprintf(order->comment, sizeof order->comment, "rollback to revision %u", order->revision);
	keeper_read(ch->control, order->revision, !is_trial(order), on_read, ch);
}

/* What can be told now is told now; the transaction that puts it into force asks the same again. */
static void begin_approval(struct change *ch)
{
	struct policy_order *order = &ch->order;
	struct policy_revision *r = malloc(sizeof *r);
	struct err why = {"out of memory"};
	/* Its author may try what an approval would do. */
	int rc = r == NULL ? -1
			   : policy_store_approvable(ch->control->policy.store, order->revision,
						     order->dry_run ? POLICY_NO_UID : order->author.uid, clock_wall_us(), r, &why);

	if (rc == 0) {
		ch->ungated = strcmp(r->source, sources[ORDER_ROLLBACK]) == 0;
		if (order->confirm_s == 0)
			order->confirm_s = (unsigned)(r->proposed_lasts_us / 1000000);
		snprintf(ch->proposed_by, sizeof ch->proposed_by, "%.63s", r->author);
	}
	free(r);
	if (rc != 0)
		fail(ch, "%s", why.text);
	else
		keeper_read(ch->control, order->revision, !is_trial(order), on_read, ch);
}

static void begin(struct change *ch)
{
	struct control *c = ch->control;
	int fd = ch->order.bundle_fd;

	if (ch->order.check_active && ch->order.if_active != c->policy.revision) {
		fail(ch, "revision %u is in force, not %u: somebody else was faster", c->policy.revision, ch->order.if_active);
		return;
	}
	switch (ch->order.kind) {
	case ORDER_RELOAD:
		if (config_has_gssapi(c->child->config) && !ch->order.dry_run) {
			renew_gssapi(ch);
			break;
		}
		tables_refresh(c, on_tables, ch);
		break;
	case ORDER_START:
		tables_refresh(c, on_tables, ch);
		break;
	case ORDER_APPLY:
		ch->order.bundle_fd = -1;
		compile_bundle(ch, fd);
		break;
	case ORDER_ROLLBACK:
		begin_rollback(ch);
		break;
	case ORDER_APPROVE:
		begin_approval(ch);
		break;
	}
}

json_t *policy_change_status(const struct control *c)
{
	const struct change *ch = c->policy.change;
	char author[AUTHOR_TEXT_MAX];

	if (ch == NULL)
		return NULL;
	roles_author(&ch->order.author, author);
	return json_pack("{s:s,s:o}", "stage", ch->stage, "author", note_text(author, strlen(author)));
}

/* Every way by which somebody changes the policy.  Not the rollback of a trial, which was approved with it, nor a start. */
static bool needs_approval(const struct control *c, const struct policy_order *order)
{
	return c->child->config->policy_approval && !order->unconfirmed &&
	       (order->kind == ORDER_RELOAD || order->kind == ORDER_APPLY || order->kind == ORDER_ROLLBACK);
}

static void forget_names(struct control *c)
{
	struct peer *p;

	LIST_FOREACH (p, &c->peers, next)
		if (p->role == ROLE_WORKER)
			ipc_send(p->link, IPC_FORGET_NAMES, NULL, 0, NULL, 0);
}

void policy_change(struct control *c, const struct policy_order *order, policy_done *done, void *arg)
{
	struct policy_result busy = {.error = "another change of the policy is under way: try again when it is done"};
	struct change *ch;
	bool trial = is_trial(order);

	if (order->kind == ORDER_RELOAD && !order->dry_run) {
		auth_forget_all(c);
		forget_names(c);
	}
	if (trial && c->policy.trials == TRIALS_MAX)
		busy.error = "too many dry runs are under way: try again when one is done";
	else if (c->policy.image_fd < 0)
		busy.error = "gatewayd has not started yet";
	else if (!trial && !order->unconfirmed && confirm_is_over(c))
		busy.error = "what is in force was not confirmed in time, and is being rolled back: try again when that is done";
	else if (trial || (c->policy.change == NULL && !keeper_is_busy(c)))
		busy.error = NULL;
	if (busy.error != NULL) {
		busy.revision = c->policy.revision;
		busy.notes = json_array();
		done(c, &busy, arg);
		json_decref(busy.notes);
		json_decref(order->found);
		if (order->bundle_fd >= 0)
			close(order->bundle_fd);
		return;
	}
	ch = calloc(1, sizeof *ch);
	if (ch == NULL)
		log_fatal("out of memory");
	*ch = (struct change){.control = c, .order = *order, .done = done, .arg = arg, .stage = "reading", .notes = json_array(), .source_fd = -1, .image_fd = -1, .former_fd = -1};
	ch->proposes = needs_approval(c, order);
	if (order->found != NULL)
		json_array_extend(ch->notes, order->found);
	ch->warnings = (uint32_t)json_array_size(ch->notes);
	json_decref(order->found);
	ch->order.found = NULL;
	if (trial)
		c->policy.trials++;
	else
		c->policy.change = ch;
	begin(ch);
}

/* Not while a start is under way, which is before there is a trial to be over; and what is being stored, or is, ends soon. */
void policy_give_way(struct control *c)
{
	struct change *ch = c->policy.change;
	char error[128];

	if (ch == NULL || ch->waiting || ch->storing || ch->order.unconfirmed)
		return;
	snprintf(error, sizeof error, TRIAL_OVER, c->policy.revision);
	c->policy.change = NULL;
	tables_discard(c);
	record_refused(ch, error);
	tell(ch, error);
	ch->abandoned = true;
	if (ch->file_awaited)
		c->policy.stale_files++;
	if (ch->file_awaited || ch->renewal_awaited || tables_forget(c, ch))
		release(ch);
}

static void on_started(struct control *c, const struct policy_result *result, void *arg)
{
	(void)arg;
	control_log_notes(result->notes);
	log_info("policy revision %u is in force: %zu rules", result->revision, c->policy.rules);
	approvals_start(c);
}

void policy_start(struct control *c, bool first)
{
	struct change *ch = calloc(1, sizeof *ch);

	if (ch == NULL)
		log_fatal("out of memory");
	c->policy.warnings = json_array();
	*ch = (struct change){.control = c,
			      .order = {.kind = ORDER_START, .first = first, .author = {c->owner, "start"}, .bundle_fd = -1},
			      .done = on_started,
			      .stage = "reading",
			      .notes = json_array(),
			      .source_fd = -1,
			      .image_fd = -1,
			      .former_fd = -1};
	c->policy.change = ch;
	approvals_found(c);
	begin(ch);
}
