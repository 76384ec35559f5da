/* What is quarantined: filters that no new session may match until a time, before policy is asked.  Kept in a file beside the policy
 * store, so that they outlive control and the gateway.
 *
 * How long a block lasts is measured by a clock that nobody can set, as long as the host runs: no step of the wall clock lifts one.
 * After a start of the host the wall clock tells how much of it is left; and since that may be wrong then and be put right later, such
 * a block is over only when both clocks say so. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/control/internal.h"
#include "gatewayd/steering.h"

#define FILE_NAME "blocks.json"
#define FILE_NEW "blocks.json.new"
#define FILE_MAX (256 * 1024)
#define SECONDS_MAX (30 * 86400)
/* So long one that is over is kept, while there is room: a clock that was wrong and is put right brings it back. */
#define KEPT_US (86400 * INT64_C(1000000))
/* So far a clock goes astray without being set. */
#define SHOWN_AWAY_US (2 * INT64_C(1000000))
#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_MAX 40
/* Of one block, without what the host's run adds to it.  Workers are told less, so that all of them fit into a message. */
#define BLOCK_BYTES_MAX 1000

/* ---- the file ----------------------------------------------------------------------------------------------------------- */

static bool write_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		text += n;
		len -= (size_t)n;
	}
	return true;
}

static bool save(const struct control *c)
{
	char *text = json_dumps(c->blocks, JSON_COMPACT);
	int fd = text == NULL ? -1 : open(FILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool saved = fd >= 0 && write_all(fd, text, strlen(text)) && fsync(fd) == 0 && rename(FILE_NEW, FILE_NAME) == 0;
	int saved_errno = errno;

	if (fd >= 0)
		close(fd);
	free(text);
	fd = saved ? open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		saved = fsync(fd) == 0;
		close(fd);
	}
	if (!saved)
		log_error("blocks cannot be saved: %s; they are in force, but only until a restart", strerror(saved_errno));
	return saved;
}

/* As others see it: without what is of no use to them. */
static json_t *without(const json_t *block, const char *const members[], size_t n)
{
	json_t *copy = json_copy((json_t *)(uintptr_t)block);

	for (size_t i = 0; i < n; i++)
		json_object_del(copy, members[i]);
	return copy;
}

static const char *const of_this_host[] = {"boot", "until_boot_us"};

static size_t size_of(const json_t *block)
{
	json_t *plain = without(block, of_this_host, 2);
	size_t size = json_dumpb(plain, NULL, 0, JSON_COMPACT);

	json_decref(plain);
	return size;
}

static bool block_is_sound(const json_t *block)
{
	char *filter = json_dumps(json_object_get(block, "filter"), JSON_COMPACT);
	const json_t *id = json_object_get(block, "id");
	struct audit_filter parsed;
	struct err why;
	bool sound = filter != NULL && steering_filter(filter, &parsed, &why) == 0 && json_is_integer(id) && json_integer_value(id) > 0 &&
		     json_integer_value(id) <= UINT32_MAX && json_is_integer(json_object_get(block, "until_us")) &&
		     json_is_string(json_object_get(block, "reason")) && json_is_string(json_object_get(block, "author")) &&
		     size_of(block) <= BLOCK_BYTES_MAX;

	free(filter);
	return sound;
}

/* Which run of the host this is; "": that cannot be told, and then no other is this one. */
static char boot_id[BOOT_ID_MAX];

static void read_boot_id(void)
{
	int fd = open(BOOT_ID_FILE, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, boot_id, sizeof boot_id - 1);

	if (fd >= 0)
		close(fd);
	boot_id[n > 0 ? n : 0] = '\0';
	boot_id[strspn(boot_id, "0123456789abcdef-")] = '\0';
}

static bool is_of_this_run(const json_t *block)
{
	const char *boot = json_string_value(json_object_get(block, "boot"));

	return boot != NULL && boot[0] != '\0' && strcmp(boot, boot_id) == 0;
}

/* One of an earlier run of the host, or of a gateway that did not know of runs: what the wall clock says is left. */
static void take_over(json_t *block)
{
	int64_t left = json_integer_value(json_object_get(block, "until_us")) - clock_wall_us();

	json_object_del(block, "boot");
	if (left > SECONDS_MAX * INT64_C(1000000))
		left = SECONDS_MAX * INT64_C(1000000);
	json_object_set_new(block, "until_boot_us", json_integer(clock_boot_us() + (left > 0 ? left : 0)));
}

void blocks_start(struct control *c)
{
	static char text[FILE_MAX];
	int fd = open(FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text);
	bool sound = fd >= 0 || errno == ENOENT;

	if (fd >= 0)
		close(fd);
	c->blocks = n > 0 ? json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL) : json_array();
	sound = sound && json_is_array(c->blocks) && json_array_size(c->blocks) <= STEERING_BLOCKS_MAX;
	read_boot_id();
	for (size_t i = 0; sound && i < json_array_size(c->blocks); i++) {
		json_t *block = json_array_get(c->blocks, i);
		json_int_t id = json_integer_value(json_object_get(block, "id"));

		sound = block_is_sound(block);
		if (sound && id > c->last_block)
			c->last_block = (uint32_t)id;
		if (sound && !is_of_this_run(block))
			take_over(block);
	}
	/* Nobody is let through because a file cannot be read. */
	if (!sound)
		child_unusable(c->child, "state-dir/policy/" FILE_NAME " is damaged or cannot be read: what was blocked with `gatewayctl session "
					 "block` is not known; remove the file to start without any block");
}

/* ---- in force ----------------------------------------------------------------------------------------------------------- */

static int64_t until_us(const struct control *c, size_t i)
{
	return json_integer_value(json_object_get(json_array_get(c->blocks, i), "until_us"));
}

/* How much of it is left, by the clock that nobody can set. */
static int64_t left_us(const struct control *c, size_t i)
{
	return json_integer_value(json_object_get(json_array_get(c->blocks, i), "until_boot_us")) - clock_boot_us();
}

static bool in_force(const struct control *c, size_t i)
{
	return left_us(c, i) > 0 || (!is_of_this_run(json_array_get(c->blocks, i)) && until_us(c, i) > clock_wall_us());
}

/* Those that have been over for long; and, where no other has room, the one that was over first.  False: there is no room. */
static bool forget_old(struct control *c)
{
	int64_t now_us = clock_wall_us();
	size_t first = 0;

	for (size_t i = json_array_size(c->blocks); i-- > 0;)
		if (!in_force(c, i) && (is_of_this_run(json_array_get(c->blocks, i)) || until_us(c, i) <= now_us - KEPT_US))
			json_array_remove(c->blocks, i);
	if (json_array_size(c->blocks) < STEERING_BLOCKS_MAX)
		return true;
	for (size_t i = 1; i < json_array_size(c->blocks); i++)
		if (in_force(c, i) < in_force(c, first) || (in_force(c, i) == in_force(c, first) && until_us(c, i) < until_us(c, first)))
			first = i;
	return !in_force(c, first) && json_array_remove(c->blocks, first) == 0;
}

static json_t *for_workers(const struct control *c)
{
	static const char *const untold[] = {"boot", "since_us", "author", "login"};
	json_t *list = json_array(), *one;

	for (size_t i = 0; i < json_array_size(c->blocks); i++) {
		one = without(json_array_get(c->blocks, i), untold, sizeof untold / sizeof *untold);
		if (is_of_this_run(json_array_get(c->blocks, i)))
			json_object_set_new(one, "until_us", json_integer(0));
		json_array_append_new(list, one);
	}
	return list;
}

void blocks_send(const struct peer *worker)
{
	json_t *list = for_workers(worker->control);
	char *text = json_dumps(list, JSON_COMPACT);

	json_decref(list);
	if (text == NULL || ipc_send(worker->link, IPC_BLOCKS, text, strlen(text), NULL, 0) != 0)
		/* It would go on without them. */
		control_end_worker(worker);
	free(text);
}

static void send_all(const struct control *c)
{
	const struct peer *p;

	LIST_FOREACH (p, &c->peers, next)
		if (p->role == ROLE_WORKER)
			blocks_send(p);
}

/* ---- commands ----------------------------------------------------------------------------------------------------------- */

void blocks_add(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);
	char filter[STEERING_FILTER_MAX], reason[STEERING_REASON_MAX + 1];
	json_int_t seconds = json_integer_value(json_object_get(request, "seconds"));
	int64_t now_us = clock_wall_us();

	if (seconds < 1 || seconds > SECONDS_MAX) {
		admin_refuse(client, "a block lasts from a second to 30 days");
		return;
	}
	if (!sessions_read_filter(client, request, false, filter) || !sessions_read_reason(client, request, reason))
		return;
	static const char *const begun[] = {"session", "revision", "since_us", "until_us"};

	for (size_t i = 0; i < sizeof begun / sizeof *begun; i++)
		if (json_object_get(json_object_get(request, "filter"), begun[i]) != NULL) {
			admin_refuse(client, "what is to come is blocked by user, client, to, port, group, country, rule and text: "
					     "a session, a revision, since and until are of what has begun already");
			return;
		}
	if (!forget_old(c)) {
		admin_refuse(client, "64 blocks are in force, and no more may be: take one away, or write a rule");
		return;
	}
	json_t *block = json_pack("{s:I, s:O, s:I, s:I, s:s, s:s}", "id", (json_int_t)c->last_block + 1, "filter",
				  json_object_get(request, "filter"), "since_us", (json_int_t)now_us, "until_us",
				  (json_int_t)(now_us + seconds * 1000000), "reason", reason, "author", admin_author(client)->name);

	if (admin_author(client)->login[0] != '\0')
		json_object_set_new(block, "login", json_string(admin_author(client)->login));
	if (block == NULL || !block_is_sound(block)) {
		json_decref(block);
		admin_refuse(client, "the filter and the reason are too long together");
		return;
	}
	json_object_set_new(block, "boot", json_string(boot_id));
	json_object_set_new(block, "until_boot_us", json_integer(clock_boot_us() + seconds * 1000000));
	/* What can still be refused is, before anything is in force. */
	struct session_job *ending = sessions_end_later(client);

	if (ending == NULL) {
		json_decref(block);
		return;
	}
	c->last_block++;
	json_array_append_new(c->blocks, block);
	sessions_record(client, "session block", json_object_get(request, "filter"), reason);
	send_all(c);
	bool saved = save(c);

	/* Workers take messages in their order: nothing slips in between. */
	sessions_end(ending, client, filter, reason, json_pack("{s:I, s:b}", "block", (json_int_t)c->last_block, "saved", saved));
}

/* Of a clock that was set since, its end is another time. */
static void show_end(const struct control *c, size_t i, json_t *shown)
{
	int64_t end_us = clock_wall_us() + left_us(c, i), away_us = end_us - until_us(c, i);

	if (is_of_this_run(json_array_get(c->blocks, i)) && (away_us > SHOWN_AWAY_US || away_us < -SHOWN_AWAY_US))
		json_object_set_new(shown, "until_us", json_integer(end_us));
}

void blocks_list(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);

	json_t *list = json_array(), *one;

	(void)request;
	for (size_t i = 0; i < json_array_size(c->blocks); i++) {
		if (!in_force(c, i))
			continue;
		one = without(json_array_get(c->blocks, i), of_this_host, 2);
		show_end(c, i, one);
		json_array_append_new(list, one);
	}
	admin_reply(client, json_pack("{s:b, s:o}", "ok", 1, "blocks", list), -1);
}

void blocks_remove(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);
	const json_t *id = json_object_get(request, "block");
	char what[64];

	for (size_t i = 0; json_is_integer(id) && i < json_array_size(c->blocks); i++) {
		if (!in_force(c, i) ||
		    json_integer_value(json_object_get(json_array_get(c->blocks, i), "id")) != json_integer_value(id))
			continue;
		struct session_job *taken = sessions_wait_later(client);

		if (taken == NULL)
			return;
		json_array_remove(c->blocks, i);
		snprintf(what, sizeof what, "session unblock: %lld", (long long)json_integer_value(id));
		admin_record(client, AUDIT_ADMIN, what);
		send_all(c);
		sessions_wait(taken, client, json_pack("{s:b}", "saved", save(c)));
		return;
	}
	admin_refuse(client, "there is no such block: `gatewayctl session blocks` shows those in force");
}
