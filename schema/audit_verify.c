#include "config.h"

#include "schema/audit_verify.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/clock.h"
#include "schema/audit_json.h"
#include "schema/audit_holds.h"
#include "schema/audit_open.h"
#include "schema/audit_prune.h"
#include "schema/audit_replay.h"
#include "schema/audit_row.h"
#include "schema/audit_segment.h"
#include "schema/audit_store.h"
#include "schema/db.h"

/* Sentences; who rewrote a million rows is found by the first. */
#define FINDINGS_MAX 100
/* A clock may be set back a little between an order and what it declares. */
#define CLOCK_SLACK_US (3600 * INT64_C(1000000))
/* Going to a later epoch takes time: so far at once without proof, and so far in vain in all (years of minutes). */
#define EPOCHS_UNPROVEN_MAX 4096
#define EPOCHS_IN_VAIN_MAX (UINT64_C(1) << 24)
/* Of one read transaction on a segment that may be written meanwhile. */
#define PAGE_US 500000
#define PAGE_ENTRIES 64

/* ---- what should be in the tables that are not rows ----------------------------------------------------------------
 */

struct known_sender {
	uint64_t incarnation, last;
	int64_t seen;
};

struct known_open {
	int64_t session, flow; /* an empty slot has event 0 */
	uint64_t incarnation;
	int64_t event;
};

/* Open addressing; sessions come and go, so slots that were left are marked by event -1. */
struct open_set {
	struct known_open *slots;
	size_t size, used, live; /* used: with those that were left */
};

/* A declaration of audit_prune.h. */
struct declared {
	int64_t entry;
	struct audit_pruned p; /* its bits stand below */
	uint8_t *bits;
	uint8_t hash[AUDIT_DIGEST_BYTES]; /* of the body as it was read ahead */
	bool used, confirmed, withdrawn;
};

struct verifier {
	const struct audit_verify_options *options;
	struct audit_verified *out;
	struct audit_keys keys, epoch_before;
	uint8_t store[AUDIT_ID_BYTES];	 /* whose keys these are */
	bool epoch_open;		 /* the next entry says which epoch it is */
	bool stopped;			 /* nobody wants the rest */
	bool new_chain;			 /* this segment begins one */
	int64_t told_row;		 /* and this row tells of it; 0: none */
	uint8_t before[AUDIT_MAC_BYTES]; /* as it stands in the file: one false entry is one finding */
	int64_t next_entry, next_row, adopted;
	int64_t carried;  /* how many of the next rows tell of sessions that were open before this segment */
	uint32_t segment; /* being read */
	bool ended;	  /* its last entry has come */
	bool lost;	  /* where the chain should go on is not known: the next segment says it */
	bool first;	  /* of this segment, no entry has been read */
	struct audit_head head;
	uint8_t head_tag[AUDIT_DIGEST_BYTES];
	bool have_head, head_seen;
	uint64_t key_epoch; /* of the recorder's key, before anything was read */
	size_t anchor;	    /* the next */
	uint64_t about;	    /* rows in all */
	struct known_sender *senders;
	size_t nsenders, senders_room;
	struct open_set open;
	struct declared *declared;
	size_t ndeclared, declared_room;
	size_t *mine, nmine;	   /* of them, those of rows of this segment */
	uint32_t declared_segment; /* has been read up to there */
	int64_t declared_entry;	   /* and this is the last one that was seen */
	uint32_t looked_segment;   /* for which they were read and chosen */
	int64_t begins_behind;	   /* the last entry of what was pruned as a whole */
	bool some_pruned;	   /* rows of this segment */
	/* Of the declaration that the audit's beginning follows; 0: none.  Its segment begins before then, in this
	 * epoch. */
	int64_t begins_before_us;
	uint64_t begins_epoch;
	/* The order that is being carried out, as the recorder's rows tell; that row itself may be pruned. */
	enum { ORDER_NONE, ORDER_GIVEN, ORDER_UNKNOWN } order;
	int64_t order_before_us;
	uint64_t unfit_epochs; /* that were gone to for nothing */
	/* A digest of those that stand, as was recorded last, and of those before the change that was; "": not known.
	 */
	char holds[AUDIT_HOLDS_DIGEST_TEXT_MAX], holds_before[AUDIT_HOLDS_DIGEST_TEXT_MAX];
	struct db *db;
	struct db_stmt *entries, *rows;
	bool row; /* the row cursor stands on one */
	int64_t row_id;
	uint8_t bytes[AUDIT_ROW_BYTES_MAX];
	struct audit_event event;
};

static void find(struct verifier *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void find(struct verifier *v, const char *format, ...)
{
	char text[600];
	va_list ap;

	if (++v->out->findings > FINDINGS_MAX)
		return;
	int used = snprintf(text, sizeof text, "segment %u: ", v->segment);

	va_start(ap, format);
	vsnprintf(text + used, sizeof text - (size_t)used, format, ap);
	va_end(ap);
	v->options->finding(text, v->options->arg);
}

static size_t slot_of(const struct open_set *set, int64_t session, int64_t flow)
{
	uint64_t h = (uint64_t)session * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)flow;

	return (size_t)(h ^ h >> 29) & (set->size - 1);
}

static struct known_open *open_find(const struct open_set *set, int64_t session, int64_t flow)
{
	if (set->size == 0)
		return NULL;
	for (size_t i = slot_of(set, session, flow);; i = (i + 1) & (set->size - 1)) {
		struct known_open *o = &set->slots[i];

		if (o->event == 0)
			return NULL;
		if (o->event > 0 && o->session == session && o->flow == flow)
			return o;
	}
}

static void open_insert(struct open_set *set, const struct known_open *new)
{
	size_t i = slot_of(set, new->session, new->flow);

	while (set->slots[i].event > 0)
		i = (i + 1) & (set->size - 1);
	set->used += set->slots[i].event == 0;
	set->live++;
	set->slots[i] = *new;
}

static bool open_add(struct open_set *set, const struct known_open *new)
{
	if (set->used * 2 >= set->size) {
		struct open_set larger = {.size = set->live * 4 < 1024 ? 1024 : set->size};

		while (larger.size < set->live * 4)
			larger.size *= 2;
		larger.slots = calloc(larger.size, sizeof *larger.slots);
		if (larger.slots == NULL)
			return false;
		for (size_t i = 0; i < set->size; i++)
			if (set->slots[i].event > 0)
				open_insert(&larger, &set->slots[i]);
		free(set->slots);
		*set = larger;
	}
	open_insert(set, new);
	return true;
}

static void open_remove(struct open_set *set, struct known_open *o)
{
	o->event = -1;
	set->live--;
}

static void open_clear(struct open_set *set)
{
	free(set->slots);
	*set = (struct open_set){0};
}

static struct known_sender *sender_find(struct verifier *v, uint64_t incarnation)
{
	/* The last ones are those that send. */
	for (size_t i = v->nsenders; i-- > 0;)
		if (v->senders[i].incarnation == incarnation)
			return &v->senders[i];
	return NULL;
}

static bool sender_set(struct verifier *v, uint64_t incarnation, uint64_t last, int64_t seen)
{
	struct known_sender *s = sender_find(v, incarnation);

	if (s == NULL) {
		if (v->nsenders == v->senders_room) {
			size_t room = v->senders_room == 0 ? 256 : 2 * v->senders_room;
			struct known_sender *grown = reallocarray(v->senders, room, sizeof *grown);

			if (grown == NULL)
				return false;
			v->senders = grown;
			v->senders_room = room;
		}
		s = &v->senders[v->nsenders++];
	}
	*s = (struct known_sender){incarnation, last, seen};
	return true;
}

/* ---- what was pruned
 * ------------------------------------------------------------------------------------------------- Declarations stand
 * in later segments than what they tell of: they are read ahead when something is missing, and believed for the moment.
 * Each that was needed has to come by again, the same, as an entry of the chain. */

static void declared_hash(int64_t entry, const uint8_t *body, size_t len, uint8_t hash[AUDIT_DIGEST_BYTES])
{
	crypto_generichash_state state;
	uint8_t id[8];

	audit_put_u64(id, (uint64_t)entry);
	crypto_generichash_init(&state, NULL, 0, AUDIT_DIGEST_BYTES);
	crypto_generichash_update(&state, id, sizeof id);
	crypto_generichash_update(&state, body, len);
	crypto_generichash_final(&state, hash, AUDIT_DIGEST_BYTES);
}

static bool declared_add(struct verifier *v, int64_t entry, const uint8_t *body, size_t len)
{
	struct audit_pruned p;
	struct declared *d;

	if (!audit_prune_get(body, len, &p))
		return true; /* found as malformed when its turn comes */
	if (p.withdrawn) {
		for (size_t i = 0; i < v->ndeclared; i++)
			v->declared[i].withdrawn |= v->declared[i].entry == p.declaration;
		return true;
	}
	if (v->ndeclared == v->declared_room) {
		size_t room = v->declared_room == 0 ? 64 : 2 * v->declared_room;
		struct declared *grown = reallocarray(v->declared, room, sizeof *grown);

		if (grown == NULL)
			return false;
		v->declared = grown;
		v->declared_room = room;
	}
	d = &v->declared[v->ndeclared];
	*d = (struct declared){.entry = entry, .p = p};
	if (!p.whole) {
		d->bits = malloc(p.nbytes + 1);
		if (d->bits == NULL)
			return false;
		memcpy(d->bits, p.bits, p.nbytes);
		d->p.bits = NULL;
	}
	declared_hash(entry, body, len, d->hash);
	v->ndeclared++;
	return true;
}

/* Of one segment, behind what was read before. */
static int read_declared(struct verifier *v, uint32_t number, struct err *why)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct err ignored;
	struct db *db = audit_segment_open(audit_segment_name(number, name), AUDIT_READ, &ignored);
	struct db_stmt *s =
		db == NULL ? NULL
			   : db_prepare(db, "SELECT id, body FROM chain WHERE id > ?1 AND kind = ?2 ORDER BY id",
					&ignored);
	bool enough = true;

	if (s != NULL) {
		db_bind_i64(s, 1, v->declared_entry);
		db_bind_i64(s, 2, AUDIT_ENTRY_PRUNED);
	}
	while (s != NULL && enough && db_step(s, &ignored) == DB_ROW) {
		size_t len;
		const uint8_t *body = db_bytes(s, 1, &len);

		v->declared_entry = db_i64(s, 0);
		enough = declared_add(v, v->declared_entry, body, len);
	}
	db_close(&db);
	v->declared_segment = number;
	return enough ? 0 : err_set(why, "out of memory");
}

/* All that there are by now. */
static int load_declared(struct verifier *v, struct err *why)
{
	uint32_t *numbers;
	int n = audit_segment_list(&numbers, why), rc = n < 0 ? -1 : 0;

	for (int i = 0; rc == 0 && i < n; i++)
		if (numbers[i] >= v->declared_segment)
			rc = read_declared(v, numbers[i], why);
	free(numbers);
	return rc;
}

/* The declaration that has the audit begin the latest. */
static struct declared *beginning(struct verifier *v)
{
	struct declared *last = NULL;

	for (size_t i = 0; i < v->ndeclared; i++)
		if (v->declared[i].p.whole && !v->declared[i].withdrawn &&
		    (last == NULL || v->declared[i].p.segment >= last->p.segment))
			last = &v->declared[i];
	return last;
}

/* Segments up to this one may be missing. */
static int pruned_up_to(struct verifier *v, uint32_t segment, bool *pruned, struct err *why)
{
	struct declared *d;

	if (load_declared(v, why) != 0)
		return -1;
	d = beginning(v);
	*pruned = d != NULL && d->p.segment >= segment;
	if (!*pruned)
		return 0;
	d->used = true;
	v->out->pruned_segments = d->p.segment;
	v->begins_behind = d->p.entry;
	v->order = ORDER_UNKNOWN;
	v->lost = d->p.segment != segment;
	if (v->lost)
		return 0; /* one that is to be removed is still there: it says itself where it begins */
	v->out->pruned += (uint64_t)(d->p.row + 1 > v->next_row ? d->p.row + 1 - v->next_row : 0);
	v->next_entry = d->p.entry + 1;
	v->next_row = d->p.row + 1;
	memcpy(v->before, d->p.mac, sizeof v->before);
	v->epoch_open = true;
	v->begins_before_us = d->p.before_us;
	v->begins_epoch = d->p.epoch;
	return 0;
}

/* Young: it was recorded behind what its declaration is about; adopted rows are older than what recorded them. */
static bool row_declared(struct verifier *v, int64_t id, int64_t recorded_us, bool *young)
{
	bool is = false;

	*young = false;
	for (size_t i = v->nmine; i-- > 0;) {
		struct declared *d = &v->declared[v->mine[i]];
		int64_t at = id - d->p.first;

		if (at < 0 || at / 8 >= (int64_t)d->p.nbytes || (d->bits[at / 8] >> (at % 8) & 1) == 0)
			continue;
		if (d->withdrawn)
			continue;
		d->used = is = true;
		*young = recorded_us >= d->p.before_us && id > v->adopted;
		if (!*young)
			break;
	}
	return is;
}

/* Those that tell of rows of this segment. */
static int choose_declared(struct verifier *v, struct err *why)
{
	size_t *mine;

	if (load_declared(v, why) != 0)
		return -1;
	mine = reallocarray(v->mine, v->ndeclared + 1, sizeof *mine);
	if (mine == NULL)
		return err_set(why, "out of memory");
	v->mine = mine;
	v->nmine = 0;
	for (size_t i = 0; i < v->ndeclared; i++)
		if (!v->declared[i].p.whole && v->declared[i].p.segment == v->segment)
			v->mine[v->nmine++] = i;
	return 0;
}

/* A row that the chain knows is not there: 1 it was pruned (and *young), 0 not, -1. */
static int was_pruned(struct verifier *v, int64_t id, int64_t recorded_us, bool *young, struct err *why)
{
	bool pruned;

	/* This file was opened before: what was pruned from it had been declared by then. */
	if (v->looked_segment != v->segment && choose_declared(v, why) != 0)
		return -1;
	v->looked_segment = v->segment;
	pruned = row_declared(v, id, recorded_us, young);
	v->order = pruned ? ORDER_UNKNOWN : v->order;
	v->out->pruned += pruned;
	v->some_pruned |= pruned;
	return pruned;
}

/* What no recorder declares: without an order that its rows tell of, of what is younger than an order can be about. */
static void check_declaration(struct verifier *v, const struct audit_entry *e)
{
	struct audit_pruned p;
	char time[AUDIT_TIME_TEXT_MAX];

	if (!audit_prune_get(e->body, e->len, &p) || p.withdrawn)
		return;
	if (v->order == ORDER_NONE || (v->order == ORDER_GIVEN && v->order_before_us != p.before_us))
		find(v, "entry %lld declares rows as pruned, and no row tells of the order", (long long)e->id);
	if (p.before_us > e->time_us - AUDIT_PRUNE_KEEP_MIN_US + CLOCK_SLACK_US)
		find(v, "entry %lld declares rows of before %s as pruned: no order reaches that far", (long long)e->id,
		     audit_time_text(p.before_us, time));
}

static void confirm_declared(struct verifier *v, const struct audit_entry *e)
{
	uint8_t hash[AUDIT_DIGEST_BYTES];

	check_declaration(v, e);

	for (size_t i = 0; i < v->ndeclared; i++)
		if (v->declared[i].entry == e->id) {
			declared_hash(e->id, e->body, e->len, hash);
			v->declared[i].confirmed = memcmp(hash, v->declared[i].hash, sizeof hash) == 0;
		}
}

static void check_declared(struct verifier *v)
{
	for (size_t i = 0; i < v->ndeclared; i++)
		if (v->declared[i].used && !v->declared[i].confirmed)
			find(v, "entry %lld, which declared what is missing as pruned, did not stand in the chain",
			     (long long)v->declared[i].entry);
}

static void declared_clear(struct verifier *v)
{
	for (size_t i = 0; i < v->ndeclared; i++)
		free(v->declared[i].bits);
	free(v->declared);
	free(v->mine);
}

/* Only a change that the row itself tells of makes other holds of those that stood. */
static void compare_holds(struct verifier *v, int64_t id, const char *what, const char *holds, const char *before)
{
	bool known = v->holds[0] != '\0';

	if (strcmp(what, "holds-not-proven") == 0)
		find(v,
		     "row %lld: the recorder began with holds that nothing proved, since " AUDIT_HEAD_FILE
		     " was gone: compare those that stand with those that should",
		     (long long)id);
	else if (strcmp(what, "holds-undone") == 0 && known && v->holds_before[0] != '\0' &&
		 strcmp(v->holds_before, holds) == 0)
		return;
	else if (strncmp(what, "hold-", 5) == 0 && known && (before == NULL || strcmp(v->holds, before) != 0))
		find(v, "row %lld: holds were changed that were others than were recorded before", (long long)id);
	else if (strncmp(what, "hold-", 5) != 0 && known && strcmp(v->holds, holds) != 0)
		find(v, "row %lld: rows were pruned under other holds than were recorded before", (long long)id);
}

/* Who had what pruned: the row says it, and so do we. */
static void follow_order(struct verifier *v, int64_t id, const char *what, const json_t *before_us)
{
	char text[AUDIT_TEXT_MAX + 200], time[AUDIT_TIME_TEXT_MAX], by[65], reason[AUDIT_TEXT_MAX];
	const char *at;
	size_t len;

	if (strncmp(what, "prune-", 6) != 0)
		return;
	v->order = strcmp(what, "prune-begun") == 0 ? ORDER_GIVEN : ORDER_NONE;
	v->order_before_us = json_integer_value(before_us);
	if (v->order == ORDER_NONE)
		return;
	v->out->orders++;
	if (v->options->pruned == NULL)
		return;
	at = db_bytes(v->rows, COL_USER, &len);
	snprintf(by, sizeof by, "%.*s", (int)len, len == 0 ? "" : at);
	at = db_bytes(v->rows, COL_REASON, &len);
	snprintf(reason, sizeof reason, "%.*s", (int)len, len == 0 ? "" : at);
	snprintf(text, sizeof text, "%s, row %lld, by %s: %s", audit_time_text(db_i64(v->rows, COL_TIME), time),
		 (long long)id, by, reason);
	v->options->pruned(text, v->options->arg);
}

/* The recorder's own words about holds and pruning: what was pruned, was pruned under the holds that stood. */
static void follow_holds(struct verifier *v, int64_t id)
{
	size_t len;
	const char *text = db_bytes(v->rows, COL_DETAIL, &len);
	if (len > 0 && v->new_chain && v->told_row == 0 && memmem(text, len, "\"chain\":\"begun anew\"", 20) != NULL)
		v->told_row = id;
	json_t *detail = memmem(text, len, "\"retention\"", 11) == NULL ? NULL : json_loadb(text, len, 0, NULL);
	const char *what = json_string_value(json_object_get(detail, "retention"));
	const char *holds = json_string_value(json_object_get(detail, "holds"));
	const char *before = json_string_value(json_object_get(detail, "before"));

	if (what != NULL && holds != NULL) {
		compare_holds(v, id, what, holds, before);
		follow_order(v, id, what, json_object_get(detail, "before_us"));
		snprintf(v->holds_before, sizeof v->holds_before, "%s", strncmp(what, "hold-", 5) == 0 ? v->holds : "");
		snprintf(v->holds, sizeof v->holds, "%s", holds);
	}
	json_decref(detail);
}

/* ---- rows -----------------------------------------------------------------------------------------------------------
 */

/* What an event does to what is open (audit_open.c); by itself: the recorder closes what is lost, whoever had it.
 * False: out of memory. */
static bool apply(struct open_set *set, enum audit_effect effect, const struct known_open *new, bool by_itself)
{
	struct known_open *o = open_find(set, new->session, new->flow);
	bool same = o != NULL && o->incarnation == new->incarnation;

	if (effect == AUDIT_EFFECT_BEGINS)
		return o != NULL || open_add(set, new);
	if (effect == AUDIT_EFFECT_MOVES && same)
		o->event = new->event;
	else if (effect == AUDIT_EFFECT_ENDS && o != NULL && (by_itself || same))
		open_remove(set, o);
	return true;
}

static struct known_open known_of(const struct audit_event *e, uint64_t incarnation, int64_t id)
{
	return (struct known_open){(int64_t)e->session, audit_open_flow(e), incarnation, id};
}

/* A row that is as it was recorded. */
static bool follow(struct verifier *v, int64_t id, const uint8_t *sender)
{
	struct audit_event *e = &v->event;
	bool carried = v->carried > 0;
	struct known_open new;

	v->carried -= carried;
	if (!audit_open_tells(v->rows, e))
		return true;
	new = known_of(e, sender == NULL ? 0 : audit_get_u64(sender), id);
	return apply(&v->open, carried ? AUDIT_EFFECT_BEGINS : audit_open_effect(e), &new, sender == NULL);
}

static const char *describe_row(struct verifier *v, char *buf, size_t size)
{
	char time[AUDIT_TIME_TEXT_MAX];
	int64_t kind = db_i64(v->rows, COL_KIND);

	snprintf(buf, size, "%s, %s", audit_time_text(db_i64(v->rows, COL_TIME), time),
		 kind >= 0 && kind < AUDIT_KIND_COUNT ? audit_kind_name((enum audit_kind)kind) : "no known event");
	return buf;
}

/* 0, or -1 with *why if the file cannot be read on. */
static int step_row(struct verifier *v, struct err *why)
{
	enum db_step rc = db_step(v->rows, why);

	v->row = rc == DB_ROW;
	if (v->row)
		v->row_id = db_i64(v->rows, COL_ID);
	return rc == DB_FAILED ? -1 : 0;
}

/* Rows before `id` (INT64_MAX: all that are left) that no entry knows. */
static int pass_strangers(struct verifier *v, int64_t id, struct err *why)
{
	char text[128];
	int64_t n = 0;

	for (; v->row && (v->row_id < id || id == INT64_MAX); n++) {
		if (n == 0)
			find(v, "row %lld (%s) was inserted: the chain does not know it",
			     (long long)db_i64(v->rows, COL_ID), describe_row(v, text, sizeof text));
		if (step_row(v, why) != 0)
			return -1;
	}
	if (n > 1)
		find(v, "%lld more rows were inserted after it", (long long)n - 1);
	return 0;
}

static int check_row(struct verifier *v, int64_t id, const uint8_t *known, const uint8_t *senders, size_t nsenders,
		     struct err *why)
{
	uint8_t digest[AUDIT_DIGEST_BYTES];
	uint8_t from = known[AUDIT_DIGEST_BYTES];
	size_t len = audit_row_bytes_of(v->rows, v->bytes);
	char text[128];

	audit_row_digest(&v->keys, v->bytes, len, digest);
	if (len == 0 || sodium_memcmp(digest, known, sizeof digest) != 0)
		find(v, "row %lld (%s) was changed", (long long)id, describe_row(v, text, sizeof text));
	else if (from == AUDIT_SENDER_NONE && db_i64(v->rows, COL_KIND) == AUDIT_ADMIN)
		follow_holds(v, id);
	v->out->rows++;
	if (!follow(v, id, from < nsenders ? senders + from * AUDIT_COMMIT_SENDER_BYTES : NULL))
		return err_set(why, "out of memory");
	return step_row(v, why);
}

static int check_rows(struct verifier *v, const struct audit_entry *e, struct err *why)
{
	const uint8_t *senders = e->body + e->count * AUDIT_COMMIT_ROW_BYTES;
	size_t nsenders = (e->len - (size_t)(senders - e->body)) / AUDIT_COMMIT_SENDER_BYTES;
	int64_t missing = 0, first_missing = 0, early = 0, first_early = 0;
	bool carried = v->carried > 0;

	for (int64_t i = 0; i < e->count; i++) {
		int64_t id = e->first + i;

		if (pass_strangers(v, id, why) != 0)
			return -1;
		if (!v->row || v->row_id != id) {
			bool young = false;
			int pruned = was_pruned(v, id, e->time_us, &young, why);

			if (pruned < 0)
				return -1;
			if (!pruned)
				first_missing = missing++ == 0 ? id : first_missing;
			if (young)
				first_early = early++ == 0 ? id : first_early;
			v->carried -= v->carried > 0;
		} else if (check_row(v, id, e->body + i * AUDIT_COMMIT_ROW_BYTES, senders, nsenders, why) != 0) {
			return -1;
		}
	}
	if (missing > 0)
		find(v, "%lld rows of entry %lld were removed, the first is row %lld", (long long)missing,
		     (long long)e->id, (long long)first_missing);
	if (early > 0)
		find(v,
		     "%lld rows of entry %lld were pruned though they were recorded later than what that prune was "
		     "about, "
		     "the first is row %lld: their time was changed before",
		     (long long)early, (long long)e->id, (long long)first_early);
	for (size_t i = 0; i < nsenders; i++) {
		uint64_t incarnation = audit_get_u64(senders + i * AUDIT_COMMIT_SENDER_BYTES);

		/* Who is carried over sent nothing new. */
		if (carried && sender_find(v, incarnation) != NULL)
			continue;
		if (!sender_set(v, incarnation, audit_get_u64(senders + i * AUDIT_COMMIT_SENDER_BYTES + 8),
				e->first + e->count - 1))
			return err_set(why, "out of memory");
	}
	return 0;
}

/* ---- entries
 * --------------------------------------------------------------------------------------------------------- */

static void go_to_epoch(struct verifier *v, uint64_t epoch)
{
	while (v->keys.epoch < epoch) {
		v->epoch_before = v->keys;
		audit_keys_ratchet(&v->keys);
	}
}

static bool well_formed(const struct audit_entry *e)
{
	switch (e->kind) {
	case AUDIT_ENTRY_COMMIT:
		return e->count >= 0 && e->count <= INT32_MAX && e->len >= (size_t)e->count * AUDIT_COMMIT_ROW_BYTES &&
		       (e->len - (size_t)e->count * AUDIT_COMMIT_ROW_BYTES) % AUDIT_COMMIT_SENDER_BYTES == 0;
	case AUDIT_ENTRY_SEAL:
		return e->count == 0 && e->len == 8;
	case AUDIT_ENTRY_BEGIN:
		return e->count == 0 && e->len >= AUDIT_BEGIN_BYTES &&
		       (e->len - AUDIT_BEGIN_BYTES) % AUDIT_BEGIN_SENDER_BYTES == 0;
	case AUDIT_ENTRY_END:
		return e->count == 0 && e->len == 0;
	case AUDIT_ENTRY_PRUNED:
		return e->count == 0 && audit_prune_get(e->body, e->len, &(struct audit_pruned){0});
	case AUDIT_ENTRY_KIND_COUNT:
		break;
	}
	return false;
}

/* The first entry of a segment: where it continues, and what it carries. */
static int take_begin(struct verifier *v, const struct audit_entry *e, struct err *why)
{
	const uint8_t *at = e->body;
	uint32_t number = 0;

	if (memcmp(at, v->store, AUDIT_ID_BYTES) != 0)
		find(v, "it is of another audit than this key");
	if (v->begins_before_us != 0 && e->time_us >= v->begins_before_us)
		find(v, "what is before it was pruned as a whole, but it begins later than that prune was about");
	if (v->begins_before_us != 0 && !v->new_chain && e->epoch > v->begins_epoch + 1)
		find(v, "what is before it was pruned as a whole, and ended in another epoch");
	v->begins_before_us = 0;
	at += AUDIT_ID_BYTES;
	for (int i = 4; i-- > 0;)
		number = number << 8 | at[i];
	if (number != v->segment)
		find(v, "it was segment %u when it was written", number);
	at += 4 + AUDIT_MAC_BYTES;
	v->adopted = (int64_t)audit_get_u64(at);
	v->carried = (int64_t)audit_get_u64(at + 8);
	at += 16;
	v->nsenders = 0;
	open_clear(&v->open);
	for (; at < e->body + e->len; at += AUDIT_BEGIN_SENDER_BYTES)
		if (!sender_set(v, audit_get_u64(at), audit_get_u64(at + 8), (int64_t)audit_get_u64(at + 16)))
			return err_set(why, "out of memory");
	return 0;
}

static void check_head(struct verifier *v, const struct audit_entry *e, const uint8_t *mac)
{
	struct audit_keys keys = v->keys;

	if (!v->have_head || v->head.entry != e->id)
		return;
	v->head_seen = true;
	/* After a seal it is written again, with the next epoch's key. */
	if (v->head.epoch == keys.epoch + 1)
		audit_keys_ratchet(&keys);
	if (memcmp(v->head.mac, mac, AUDIT_MAC_BYTES) != 0)
		find(v, "entry %lld is not the one that " AUDIT_HEAD_FILE " tells of", (long long)e->id);
	else if (v->head.epoch != keys.epoch || !audit_head_authentic(&keys, &v->head, v->head_tag))
		find(v, AUDIT_HEAD_FILE " is not authentic");
	sodium_memzero(&keys, sizeof keys);
}

static void check_anchors(struct verifier *v, const struct audit_entry *e, const uint8_t *mac)
{
	const struct audit_verify_options *o = v->options;

	for (; v->anchor < o->nanchors && o->anchors[v->anchor].entry <= e->id; v->anchor++) {
		if (o->anchors[v->anchor].entry < e->id && o->anchors[v->anchor].entry <= v->begins_behind)
			v->out->pruned_anchors++;
		else if (o->anchors[v->anchor].entry < e->id)
			find(v, "entry %lld, which an anchor tells of, is not there",
			     (long long)o->anchors[v->anchor].entry);
		else if (memcmp(o->anchors[v->anchor].mac, mac, AUDIT_MAC_BYTES) != 0)
			find(v, "entry %lld is not the one that an anchor tells of: the audit was rewritten before it",
			     (long long)e->id);
		else
			v->out->anchors++;
	}
}

static void check_place(struct verifier *v, const struct audit_entry *e)
{
	if (e->id != v->next_entry && !v->lost)
		find(v, "entry %lld of the chain follows, not %lld: %s", (long long)e->id, (long long)v->next_entry,
		     e->id > v->next_entry ? "what is between was removed" : "it was inserted, or moved");
	if (v->ended)
		find(v, "entry %lld of the chain comes after the segment's end", (long long)e->id);
	if ((e->kind == AUDIT_ENTRY_BEGIN) != v->first)
		find(v, v->first ? "its first entry is not there" : "entry %lld begins the segment once more",
		     (long long)e->id);
	/* Rows of before there was a chain may have gaps. */
	if (!v->lost && e->first != v->next_row && !(e->first > v->next_row && e->first <= v->adopted))
		find(v, "entry %lld of the chain begins with row %lld, not %lld", (long long)e->id, (long long)e->first,
		     (long long)v->next_row);
	if (e->epoch > v->keys.epoch && !v->lost && !v->epoch_open)
		find(v,
		     "entry %lld is of epoch %" PRIu64 ", but epoch %" PRIu64
		     " has no seal: the audit was put back to an earlier state (a backup was restored, or its end was "
		     "cut) and "
		     "went on",
		     (long long)e->id, e->epoch, v->keys.epoch);
}

static bool check_mac(struct verifier *v, const struct audit_entry *e, const uint8_t *mac)
{
	uint8_t should[AUDIT_MAC_BYTES];
	char time[AUDIT_TIME_TEXT_MAX];

	if (e->epoch < v->keys.epoch) {
		find(v, "entry %lld of the chain is of epoch %" PRIu64 ", which had ended", (long long)e->id, e->epoch);
		return false;
	}
	audit_entry_mac(&v->keys, v->before, e, should);
	if (sodium_memcmp(should, mac, sizeof should) == 0)
		return true;
	find(v,
	     "entry %lld of the chain (rows %lld to %lld, %s) is not authentic: it was changed, or what was "
	     "before it",
	     (long long)e->id, (long long)e->first, (long long)(e->first + e->count - 1),
	     audit_time_text(e->time_us, time));
	return false;
}

/* Whether an entry is of an epoch far ahead is known only once its key is there: one that does not fit is not believed,
 * and we stay where we are. */
static void prove_entry(struct verifier *v, const struct audit_entry *e, const uint8_t *mac)
{
	struct audit_keys keys = v->keys, before = v->epoch_before;
	uint64_t ahead = e->epoch > keys.epoch ? e->epoch - keys.epoch : 0;

	go_to_epoch(v, e->epoch);
	if (!check_mac(v, e, mac)) {
		v->unfit_epochs += ahead;
		if (ahead > EPOCHS_UNPROVEN_MAX) {
			v->keys = keys;
			v->epoch_before = before;
		}
	}
	sodium_memzero(&keys, sizeof keys);
	sodium_memzero(&before, sizeof before);
}

static int check_entry(struct verifier *v, const struct audit_entry *e, const uint8_t *mac, struct err *why)
{
	int rc = 0;

	check_place(v, e);
	if (e->kind == AUDIT_ENTRY_BEGIN && e->len >= AUDIT_BEGIN_BYTES && v->lost)
		memcpy(v->before, e->body + AUDIT_ID_BYTES + 4, AUDIT_MAC_BYTES);
	prove_entry(v, e, mac);
	if (!well_formed(e)) {
		find(v, "entry %lld of the chain is malformed", (long long)e->id);
	} else if (e->kind == AUDIT_ENTRY_BEGIN) {
		rc = take_begin(v, e, why);
	} else if (e->kind == AUDIT_ENTRY_COMMIT) {
		rc = check_rows(v, e, why);
	} else if (e->kind == AUDIT_ENTRY_SEAL && (int64_t)audit_get_u64(e->body) != e->first - 1) {
		find(v, "the seal of epoch %" PRIu64 " counts other rows", e->epoch);
	} else if (e->kind == AUDIT_ENTRY_PRUNED) {
		confirm_declared(v, e);
	}
	check_anchors(v, e, mac);
	check_head(v, e, mac);
	if (e->kind == AUDIT_ENTRY_SEAL && e->epoch == v->keys.epoch)
		go_to_epoch(v, e->epoch + 1);
	v->ended = e->kind == AUDIT_ENTRY_END;
	v->first = v->lost = v->epoch_open = false;
	v->next_entry = e->id + 1;
	v->next_row = e->first + e->count;
	memcpy(v->before, mac, AUDIT_MAC_BYTES);
	v->out->entries++;
	if (v->out->first_us == 0)
		v->out->first_us = e->time_us;
	v->out->last_us = e->time_us;
	return rc;
}

/* The entry under the cursor; its body is borrowed until the next step. */
static int take_entry(struct verifier *v, struct err *why)
{
	struct audit_entry e = {
		.id = db_i64(v->entries, 0),
		.kind = (enum audit_entry_kind)db_i64(v->entries, 1),
		.epoch = (uint64_t)db_i64(v->entries, 2),
		.time_us = db_i64(v->entries, 3),
		.first = db_i64(v->entries, 4),
		.count = db_i64(v->entries, 5),
	};
	const uint8_t *mac;
	size_t len;

	e.body = db_bytes(v->entries, 6, &e.len);
	mac = db_bytes(v->entries, 7, &len);
	/* No key has that many lives: the number was changed, and going there would take for ever. */
	if (len != AUDIT_MAC_BYTES ||
	    (e.epoch > v->keys.epoch && e.epoch - v->keys.epoch > EPOCHS_IN_VAIN_MAX - v->unfit_epochs) ||
	    e.first < 0 || e.first > INT64_MAX / 2 || e.count < 0 || e.count > INT32_MAX || e.id < 0 ||
	    e.id > INT64_MAX / 2) {
		find(v, "entry %lld of the chain is malformed", (long long)e.id);
		v->lost = true;
		v->next_entry = e.id < INT64_MAX ? e.id + 1 : e.id;
		return 0;
	}
	return check_entry(v, &e, mac, why);
}

/* ---- segments
 * -------------------------------------------------------------------------------------------------------- */

/* A row of the table; only the one that says up to which row the table is true has no session. */
static int take_open(struct verifier *v, struct db_stmt *s, struct open_set *table, int64_t *true_to, struct err *why)
{
	const struct known_open o = {db_i64(s, 0), db_i64(s, 1), (uint64_t)db_i64(s, 2), db_i64(s, 3)};

	if (o.session == AUDIT_OPEN_MARK_SESSION && o.flow == AUDIT_OPEN_MARK_FLOW) {
		*true_to = o.event;
		if (o.incarnation != AUDIT_OPEN_MARK_INCARNATION || o.event < 0 || o.event >= v->next_row)
			find(v, "up to which row the table of open sessions is true was changed");
	} else if (o.event <= 0) {
		find(v, "the table of open sessions tells of row %lld", (long long)o.event);
	} else if (!open_add(table, &o)) {
		return err_set(why, "out of memory");
	}
	return 0;
}

static int replay_open(uint64_t incarnation, int64_t id, const struct audit_event *e, void *arg, struct err *why)
{
	const struct known_open new = known_of(e, incarnation, id);

	return apply(arg, audit_open_effect(e), &new, false) ? 0 : err_set(why, "out of memory");
}

/* What is open by the table and the rows behind it, as whoever goes on with it sees it. */
static int read_open(struct verifier *v, struct open_set *table, struct err *why)
{
	struct db_stmt *s = db_prepare(v->db, "SELECT session, flow, incarnation, event FROM open_session", why);
	enum db_step rc = DB_FAILED;
	int64_t true_to = INT64_MAX;
	int result = 0;

	/* More than rows behind it can have ended were never in it. */
	while (s != NULL && result == 0 && (rc = db_step(s, why)) == DB_ROW &&
	       table->live <= v->open.live + AUDIT_REPLAY_ROWS_MAX)
		result = take_open(v, s, table, &true_to, why);
	db_finalize(&s);
	return result != 0 || rc == DB_FAILED ? -1 : audit_replay(v->db, true_to, replay_open, table, why);
}

/* Where rows of before there was a chain tell of it, nobody knows by whom it was open. */
static void compare_one_open(struct verifier *v, const struct known_open *there)
{
	const struct known_open *o = open_find(&v->open, there->session, there->flow);
	char id[AUDIT_SESSION_TEXT_MAX];

	if (o == NULL || o->event != there->event || (o->incarnation != there->incarnation && o->event > v->adopted))
		find(v, "session %s is not open as it is said to be", audit_session_text((uint64_t)there->session, id));
}

/* In the state of the file that has the segment's last row. */
static int compare_open(struct verifier *v, struct err *why)
{
	struct open_set table = {0};
	int rc = read_open(v, &table, why);

	for (size_t i = 0; rc == 0 && i < table.size; i++)
		if (table.slots[i].event > 0)
			compare_one_open(v, &table.slots[i]);
	if (rc == 0 && table.live != v->open.live)
		find(v, "%zu sessions and flows should be open, not %zu", v->open.live, table.live);
	open_clear(&table);
	return rc;
}

static int compare_senders(struct verifier *v, struct err *why)
{
	struct db_stmt *s = db_prepare(v->db, "SELECT incarnation, last, seen FROM sender", why);
	enum db_step rc = s == NULL ? DB_FAILED : DB_ROW;
	size_t n = 0;

	while (s != NULL && (rc = db_step(s, why)) == DB_ROW) {
		const struct known_sender *k = sender_find(v, (uint64_t)db_i64(s, 0));

		n++;
		if (k == NULL || k->last != (uint64_t)db_i64(s, 1) || k->seen != db_i64(s, 2))
			find(v, "how far process %016" PRIx64 " has recorded was changed", (uint64_t)db_i64(s, 0));
	}
	db_finalize(&s);
	if (rc != DB_FAILED && n < v->nsenders && n < AUDIT_SENDERS_MAX)
		find(v, "%zu processes have recorded, not %zu", v->nsenders, n);
	return rc == DB_FAILED ? -1 : 0;
}

static int end_of_segment(struct verifier *v, struct err *why)
{
	if (pass_strangers(v, INT64_MAX, why) != 0)
		return -1;
	if (v->first) {
		find(v, "it has no entry of the chain");
		return 0;
	}
	/* What the table of open sessions was made of is not all there any more; only that of the last segment counts,
	 * and nothing of that is pruned. */
	return (!v->some_pruned && compare_open(v, why) != 0) || compare_senders(v, why) != 0 ? -1 : 0;
}

/* Some entries, in one state of the file: 1 there may be more, 0 that was all, -1 it cannot be read on. */
static int page(struct verifier *v, struct err *why)
{
	int64_t deadline = clock_mono_us() + PAGE_US;
	enum db_step rc = DB_DONE;
	int n = 0, result = 0;

	if (db_begin_read(v->db, why) != 0)
		return -1;
	/* A new segment is looked at from its very first. */
	db_bind_i64(v->entries, 1, v->first ? INT64_MIN : v->next_entry);
	db_bind_i64(v->rows, 1, v->first ? INT64_MIN : v->next_row);
	if (step_row(v, why) != 0)
		result = -1;
	while (result == 0 && (n < PAGE_ENTRIES || clock_mono_us() < deadline) &&
	       (rc = db_step(v->entries, why)) == DB_ROW) {
		n++;
		result = take_entry(v, why);
	}
	if (result == 0 && rc == DB_FAILED)
		result = -1;
	if (result == 0)
		result = rc == DB_ROW ? 1 : end_of_segment(v, why);
	db_reset(v->entries);
	db_reset(v->rows);
	db_rollback(v->db);
	return result;
}

static int read_segment(struct verifier *v, struct err *why)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	int rc = 1;

	v->db = audit_segment_open(audit_segment_name(v->segment, name), AUDIT_READ, why);
	if (v->db == NULL)
		return -1;
	v->entries = db_prepare(v->db,
				"SELECT id, kind, epoch, time, first, count, body, mac FROM chain WHERE id >= ?1 "
				"ORDER BY id",
				why);
	v->rows = v->entries == NULL
			  ? NULL
			  : db_prepare(v->db, "SELECT " AUDIT_COLUMNS " FROM event WHERE id >= ?1 ORDER BY id", why);
	if (v->rows == NULL)
		rc = -1;
	while (rc == 1) {
		rc = page(v, why);
		if (v->options->progress != NULL && !v->options->progress(v->out->rows, v->about, v->options->arg))
			v->stopped = true;
		if (v->stopped)
			break;
	}
	return rc < 0 ? -1 : 0;
}

/* Which chain a segment says that it is of; false if it does not. */
static bool store_of(uint32_t number, uint8_t store[AUDIT_ID_BYTES])
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct err ignored;
	struct db *db = audit_segment_open(audit_segment_name(number, name), AUDIT_READ, &ignored);
	struct db_stmt *s =
		db == NULL ? NULL : db_prepare(db, "SELECT kind, body FROM chain ORDER BY id LIMIT 1", &ignored);
	bool has = false;
	size_t len;

	if (s != NULL && db_step(s, &ignored) == DB_ROW && db_i64(s, 0) == AUDIT_ENTRY_BEGIN) {
		const void *body = db_bytes(s, 1, &len);

		has = len >= AUDIT_BEGIN_BYTES;
		if (has)
			memcpy(store, body, AUDIT_ID_BYTES);
	}
	db_close(&db);
	return has;
}

/* False: nobody gave the key of this chain. */
static bool choose_keys(struct verifier *v, const uint8_t store[AUDIT_ID_BYTES])
{
	const struct audit_verify_options *o = v->options;
	const struct audit_keys *keys = memcmp(store, o->store, AUDIT_ID_BYTES) == 0 ? o->keys : NULL;

	if (memcmp(store, v->store, AUDIT_ID_BYTES) == 0)
		return true;
	for (size_t i = 0; keys == NULL && i < o->nothers; i++)
		if (memcmp(store, o->others[i].store, AUDIT_ID_BYTES) == 0)
			keys = &o->others[i].keys;
	if (keys == NULL)
		return false;
	v->keys = *keys;
	memcpy(v->store, store, AUDIT_ID_BYTES);
	v->new_chain = v->out->segments > 0;
	return true;
}

/* That it begins is a break, whatever tells of it: nobody knows the end of the one before. */
static void tell_new_chain(struct verifier *v)
{
	if (!v->new_chain)
		return;
	if (v->told_row != 0)
		find(v,
		     "a new chain begins here, since the key of the one before was lost (row %lld tells of it): what "
		     "was "
		     "recorded last before is protected by anchors only",
		     (long long)v->told_row);
	else
		find(v, "a new chain begins here, and no row of it tells why");
}

static void verify_segment(struct verifier *v, uint32_t number, bool last)
{
	uint8_t store[AUDIT_ID_BYTES];
	char name[AUDIT_SEGMENT_NAME_MAX];
	bool pruned = false;
	struct err why, ignored;

	v->segment = number;
	v->first = true;
	v->ended = v->some_pruned = false;
	/* It may have been pruned since it was listed. */
	if (access(audit_segment_name(number, name), F_OK) != 0 && !last &&
	    pruned_up_to(v, number, &pruned, &why) == 0 && pruned)
		return;
	v->new_chain = false;
	v->told_row = 0;
	if (store_of(number, store) && !choose_keys(v, store)) {
		find(v,
		     "it is of another audit than this key, or of a chain whose key was not given: it is passed over");
		v->lost = true;
	} else if (read_segment(v, &why) != 0) {
		/* Or since we looked. */
		if (v->first && access(name, F_OK) != 0 && !last && pruned_up_to(v, number, &pruned, &ignored) == 0 &&
		    pruned) {
			db_close(&v->db);
			return;
		}
		find(v, "it cannot be read: %s", why.text);
		v->lost = true;
	} else if (!v->stopped && !v->ended && !last && !(store_of(number + 1, store) && memcmp(store, v->store, sizeof store) != 0)) {
		find(v, "its end was cut: the last entry of a segment is not there");
	}
	if (!v->stopped)
		tell_new_chain(v);
	db_close(&v->db);
	v->out->segments++;
}

/* Rows in all, about: from the first id of the first segment to the last of the last. */
static uint64_t count_rows(const uint32_t *numbers, int n)
{
	int64_t bounds[2] = {0, 0};

	for (int i = 0; i < 2; i++) {
		char name[AUDIT_SEGMENT_NAME_MAX];
		struct err why;
		struct db *db =
			audit_segment_open(audit_segment_name(numbers[i == 0 ? 0 : n - 1], name), AUDIT_READ, &why);
		struct db_stmt *s =
			db == NULL ? NULL
				   : db_prepare(db, i == 0 ? "SELECT min(id) FROM event" : "SELECT max(id) FROM event",
						&why);

		if (s != NULL && db_step(s, &why) == DB_ROW)
			bounds[i] = db_i64(s, 0);
		db_close(&db);
	}
	return bounds[1] > bounds[0] ? (uint64_t)bounds[1] - (uint64_t)bounds[0] : 0;
}

/* The chain's head file, which only who has the key can write, says which holds stand.  A change is in a file beside
 * theirs, and then in its place: it may be done while we look, so that a difference has to be there twice. */
static const char *misfit_of_holds(struct verifier *v)
{
	uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES], known[AUDIT_DIGEST_BYTES];
	/* The last key is proof of what it wrote until the next one is in its place. */
	const struct audit_keys *keys = v->epoch_before.epoch + 1 == v->keys.epoch ? &v->epoch_before : &v->keys;

	if (!audit_head_holds(keys, v->store, known))
		return AUDIT_HEAD_FILE " does not prove which holds stand";
	if ((audit_holds_prepared(digest) && memcmp(digest, known, sizeof digest) == 0) ||
	    (audit_holds_sum_file(digest) && memcmp(digest, known, sizeof digest) == 0))
		return NULL;
	return "holds.json does not say which holds were recorded: it was edited, removed or damaged";
}

static void check_holds_file(struct verifier *v)
{
	const char *wrong = NULL;

	for (int i = 0; i < 3; i++)
		if ((wrong = misfit_of_holds(v)) == NULL)
			return;
	find(v, "%s", wrong);
}

/* It is one epoch behind for the moment between a seal and the next key, and ahead if the gateway went on since: what
 * it said before anything was read is not ahead. */
static void check_key_file(struct verifier *v)
{
	uint8_t store[AUDIT_ID_BYTES], key[AUDIT_KEY_BYTES];
	uint64_t epoch = 0;
	bool there = audit_key_read(store, &epoch, key);
	struct audit_keys should = v->keys;

	if (!there)
		find(v, AUDIT_KEY_FILE " is missing or damaged: whether the audit was put back to an earlier state is "
				       "known by an anchor only");
	else if (v->key_epoch > v->keys.epoch)
		find(v,
		     "the chain ends in epoch %" PRIu64 ", but " AUDIT_KEY_FILE " is of epoch %" PRIu64
		     ": the audit was put back to an earlier state",
		     v->keys.epoch, v->key_epoch);
	else if (epoch + 1 < v->keys.epoch)
		find(v,
		     AUDIT_KEY_FILE " is of epoch %" PRIu64 ", but the chain ends in epoch %" PRIu64
				    ": the key was put back to an earlier state",
		     epoch, v->keys.epoch);
	else {
		if (epoch < should.epoch)
			should = v->epoch_before;
		while (should.epoch < epoch && epoch - v->keys.epoch <= EPOCHS_UNPROVEN_MAX)
			audit_keys_ratchet(&should);
		if (memcmp(store, v->store, sizeof store) != 0 || should.epoch != epoch ||
		    sodium_memcmp(key, should.key, sizeof key) != 0)
			find(v, AUDIT_KEY_FILE " holds another key than that of epoch %" PRIu64 ": it was made up",
			     epoch);
	}
	sodium_memzero(key, sizeof key);
	sodium_memzero(&should, sizeof should);
}

static void check_files(struct verifier *v)
{
	if (!v->have_head)
		find(v, AUDIT_HEAD_FILE " is missing or damaged: whether the end was cut is known by an anchor only");
	else if (!v->head_seen)
		find(v,
		     "the chain ends with entry %lld, but " AUDIT_HEAD_FILE
		     " tells of entry %lld: the end was cut, or the audit was "
		     "put back to an earlier state",
		     (long long)v->next_entry - 1, (long long)v->head.entry);
	check_key_file(v);
	if (v->have_head)
		check_holds_file(v);
	for (; v->anchor < v->options->nanchors; v->anchor++)
		find(v,
		     "an anchor tells of entry %lld, but the chain ends with %lld: the end was cut, or the audit was "
		     "put back to "
		     "an earlier state",
		     (long long)v->options->anchors[v->anchor].entry, (long long)v->next_entry - 1);
}

/* The file of a segment is there for a moment before the one before it ends, and for longer while the disk has no room or
 * when the gateway ended just then: nothing has been recorded in it.  Whoever puts such a file in the place of the last
 * segment is found by the head. */
static bool is_not_begun(uint32_t number)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct err ignored;
	struct db_stmt *s = NULL;
	struct db *db;
	bool empty;

	if (audit_segment_bytes(audit_segment_name(number, name)) == 0)
		return true;
	db = audit_segment_open(name, AUDIT_READ, &ignored);
	if (db != NULL)
		s = db_prepare(db,
			       "SELECT (SELECT count(*) FROM (SELECT 1 FROM chain LIMIT 1)) + "
			       "(SELECT count(*) FROM (SELECT 1 FROM event LIMIT 1))",
			       &ignored);
	empty = s != NULL && db_step(s, &ignored) == DB_ROW && db_i64(s, 0) == 0;
	db_close(&db);
	return empty;
}

static int run(struct verifier *v, struct err *why)
{
	uint32_t *numbers;
	/* The head first: what is recorded from now on is behind it. */
	int n;
	bool pruned = false;

	uint8_t store_of_key[AUDIT_ID_BYTES], key[AUDIT_KEY_BYTES];

	v->have_head = audit_head_read(&v->head, v->head_tag) == 1;
	audit_key_read(store_of_key, &v->key_epoch, key);
	sodium_memzero(key, sizeof key);
	n = audit_segment_list(&numbers, why);
	if (n == 0)
		err_set(why, "there is no audit here");
	if (n <= 0) {
		free(numbers);
		return -1;
	}
	if (n > 1 && numbers[n - 2] + 1 == numbers[n - 1] && is_not_begun(numbers[n - 1]))
		n--;
	v->about = count_rows(numbers, n);
	v->segment = numbers[0];
	if (numbers[0] != 1) {
		if (pruned_up_to(v, numbers[0] - 1, &pruned, why) != 0) {
			free(numbers);
			return -1;
		}
		if (!pruned) {
			find(v, "segments before it are missing");
			v->lost = true;
		}
	}
	for (int i = 0; i < n; i++) {
		if (i > 0 && numbers[i] != numbers[i - 1] + 1 &&
		    (pruned_up_to(v, numbers[i] - 1, &pruned, why) != 0 || !pruned)) {
			v->segment = numbers[i];
			find(v, "segments %u to %u are missing", numbers[i - 1] + 1, numbers[i] - 1);
			v->lost = true;
		}
		verify_segment(v, numbers[i], i == n - 1);
		if (v->stopped) {
			free(numbers);
			return err_set(why, "it was interrupted");
		}
	}
	free(numbers);
	check_declared(v);
	check_files(v);
	return 0;
}

int audit_verify(const struct audit_verify_options *options, struct audit_verified *out, struct err *why)
{
	struct verifier *v = sodium_init() < 0 ? NULL : calloc(1, sizeof *v);
	int rc;

	*out = (struct audit_verified){0};
	if (v == NULL)
		return err_set(why, "out of memory");
	v->options = options;
	v->out = out;
	v->keys = *options->keys;
	memcpy(v->store, options->store, sizeof v->store);
	v->next_entry = v->next_row = 1;
	rc = run(v, why);
	memcpy(out->head.store, v->store, AUDIT_ID_BYTES);
	out->head.entry = v->next_entry - 1;
	out->head.epoch = out->epochs = v->keys.epoch;
	memcpy(out->head.mac, v->before, AUDIT_MAC_BYTES);
	open_clear(&v->open);
	free(v->senders);
	declared_clear(v);
	sodium_memzero(v, sizeof *v);
	free(v);
	return rc;
}

/* ---- anchors
 * --------------------------------------------------------------------------------------------------------- */

#define ANCHOR_WORDS "audit anchor "

const char *audit_anchor_text(const struct audit_head *head, char buf[AUDIT_ANCHOR_TEXT_MAX])
{
	char store[2 * AUDIT_ID_BYTES + 1], mac[2 * AUDIT_MAC_BYTES + 1];

	snprintf(buf, AUDIT_ANCHOR_TEXT_MAX, ANCHOR_WORDS "%s %lld %s",
		 sodium_bin2hex(store, sizeof store, head->store, AUDIT_ID_BYTES), (long long)head->entry,
		 sodium_bin2hex(mac, sizeof mac, head->mac, AUDIT_MAC_BYTES));
	return buf;
}

static const char *take_hex(const char *text, uint8_t *out, size_t len)
{
	size_t n;
	const char *end;

	if (strlen(text) < 2 * len || sodium_hex2bin(out, len, text, 2 * len, NULL, &n, &end) != 0 || n != len)
		return NULL;
	return text + 2 * len;
}

bool audit_anchor_parse(const char *line, const uint8_t store[AUDIT_ID_BYTES], struct audit_anchor *anchor)
{
	uint8_t of[AUDIT_ID_BYTES];
	const char *at = strstr(line, ANCHOR_WORDS);
	char *end;

	at = at == NULL ? NULL : take_hex(at + strlen(ANCHOR_WORDS), of, sizeof of);
	if (at == NULL || *at != ' ' || memcmp(of, store, sizeof of) != 0)
		return false;
	anchor->entry = strtoll(at + 1, &end, 10);
	return anchor->entry > 0 && *end == ' ' && take_hex(end + 1, anchor->mac, sizeof anchor->mac) != NULL;
}
