/* What the audit costs: recording into a store of many rows, the latency that a grant waits, asking, verifying, bytes a
 * row. Everything happens in a directory of its own, which is removed.  The store is made by the recorder's own code, a
 * segment a day.
 *
 * usage: audit-bench [--rows N] [--segments N] [--apart N] [--dir DIR] [--keep]
 * --apart: a session ends so many batches after it began, not in the same. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_query.h"
#include "schema/audit_segment.h"
#include "schema/audit_store.h"
#include "schema/audit_verify.h"
#include "schema/db.h"

#define DAY_US (24 * 3600 * INT64_C(1000000))
#define LARGE (UINT64_C(1) << 40)
#define USERS 1000
#define ROWS_OF_A_BATCH 40 /* what 20,000 rows a second make of an interval of 2 ms */

static struct err why;

static void die(const char *what)
{
	fprintf(stderr, "audit-bench: %s: %s\n", what, why.text);
	exit(1);
}

/* ---- time -----------------------------------------------------------------------------------------------------------
 */

static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static int64_t percentile(int64_t *values, size_t n, double p)
{
	qsort(values, n, sizeof *values, by_value);
	return values[(size_t)((double)(n - 1) * p)];
}

/* Wall time as the store sees it (common/clock.c): days pass when we say so. */
static void open_clock(void)
{
	static char name[] = "clock-XXXXXX";
	int64_t zero = 0;
	int fd = mkstemp(name);

	if (fd < 0 || write(fd, &zero, sizeof zero) != sizeof zero || setenv("GATEWAYD_CLOCK_FILE", name, 1) != 0 ||
	    !clock_init()) {
		perror("audit-bench: clock");
		exit(1);
	}
	close(fd);
}

static void set_offset(int64_t us)
{
	int fd = open(getenv("GATEWAYD_CLOCK_FILE"), O_WRONLY);

	if (fd < 0 || pwrite(fd, &us, sizeof us, 0) != sizeof us)
		exit(1);
	close(fd);
}

/* ---- rows -----------------------------------------------------------------------------------------------------------
 */

static uint64_t state = 1, session;

static uint32_t below(uint32_t n)
{
	state += 0x9e3779b97f4a7c15;
	uint64_t z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9;

	return (uint32_t)((z ^ z >> 31) % n);
}

static struct audit_event events[3];
static uint64_t *going_on, begun; /* sessions in the order they began, the last so many; how many began in all */
static size_t ngoing_on;	  /* 0: each ends with its last row */

static void keep_going_on(unsigned batches)
{
	ngoing_on = (size_t)batches * ROWS_OF_A_BATCH / 3;
	going_on = calloc(ngoing_on + 1, sizeof *going_on);
	if (going_on == NULL)
		exit(1);
}

/* The row of an end is that of the session that began longest ago; of the first ones there is none. */
static void end_earlier(void)
{
	uint64_t *oldest = ngoing_on == 0 ? NULL : &going_on[begun++ % ngoing_on];

	if (oldest == NULL)
		return;
	events[2].session = *oldest;
	*oldest = session;
}

/* The three rows of a session, as a worker makes them. */
static void make_session(int64_t time_us)
{
	uint32_t user = below(USERS);

	session += 1 + below(3);
	for (int i = 0; i < 3; i++) {
		struct audit_event *e = &events[i];

		memset(e, 0, offsetof(struct audit_event, detail) + 1);
		e->kind = i == 0 ? AUDIT_OPEN : i == 1 ? AUDIT_CONNECTED : AUDIT_ENDED;
		e->time_us = time_us + i;
		e->session = session;
		e->revision = 12;
		e->client =
			(struct endpoint){.addr = addr_v4(0x0a000000 + user), .port = (uint16_t)(1024 + below(60000))};
		e->address = (struct endpoint){.addr = addr_v4(0xcb007100 + below(250)), .port = 443};
		snprintf(e->user, sizeof e->user, "first.last%u", user);
		snprintf(e->name, sizeof e->name, "host%u.department.example", below(5000));
		strcpy(e->listener, "lan");
		strcpy(e->method, "password");
		strcpy(e->command, "connect");
		strcpy(e->rule, "web-for-staff");
	}
	strcpy(events[0].detail, "{\"candidates\":[{\"address\":\"203.0.113.7\",\"rule\":\"web-for-staff\"}]}");
	events[2].bytes_up = below(100000);
	events[2].bytes_down = below(10000000);
	events[2].duration_us = below(60000000);
	strcpy(events[2].reason, "done");
	end_earlier();
}

static uint64_t sequence;

/* As they wait in the recorder. */
#define BATCH_MAX 2000
#define RECORD_BYTES 512
static uint8_t records[BATCH_MAX][RECORD_BYTES];
static struct audit_row waiting[BATCH_MAX];

static void receive(unsigned i, const struct audit_event *e)
{
	struct wire_writer w = wire_writer_on(records[i], RECORD_BYTES);
	uint64_t incarnation, n;

	audit_put_record(&w, 7, sequence, e);
	struct wire_reader r = wire_reader_on(records[i], w.len);

	if (w.overflow || !audit_row_get_record(&r, &incarnation, &n, &waiting[i]))
		die("a record");
}

static void batch(struct audit_store *s, unsigned rows, int64_t time_us)
{
	if (audit_store_begin(s, &why) != 0)
		die("begin");
	for (unsigned i = 0; i < rows; i++) {
		if (sequence % 3 == 0)
			make_session(time_us);
		struct audit_event *e = &events[sequence++ % 3];

		receive(i, e);
		if (audit_store_append_row(s, 7, sequence, &waiting[i], &why) != 1)
			die("append");
	}
	if (audit_store_commit(s, &why) != 0)
		die("commit");
	if (audit_store_checkpoint(s, &why) != 0)
		die("checkpoint");
}

/* ---- measurements
 * ----------------------------------------------------------------------------------------------------- */

/* A bare write and fdatasync, as the disk of this run has it. */
static int64_t fdatasync_p99(void)
{
	static int64_t us[500];
	uint8_t block[8192] = {1};
	int fd = open("bare", O_RDWR | O_CREAT, 0600);

	for (int i = 0; i < 500; i++) {
		int64_t start = clock_mono_us();

		if (fd < 0 || pwrite(fd, block, sizeof block, (off_t)i * (off_t)sizeof block) < 0 || fdatasync(fd) != 0)
			die("fdatasync");
		us[i] = clock_mono_us() - start;
	}
	close(fd);
	unlink("bare");
	return percentile(us, 500, 0.99);
}

struct cost {
	double cpu_us_a_row, wall_us_a_row;
	int64_t p50_us, p99_us; /* of a commit */
};

static struct cost record(struct audit_store *s, unsigned batches)
{
	int64_t *us = calloc(batches, sizeof *us), start = clock_mono_us();
	double cpu = cpu_s();
	struct cost c;

	for (unsigned i = 0; us != NULL && i < batches; i++) {
		int64_t began = clock_mono_us();

		batch(s, ROWS_OF_A_BATCH, clock_wall_us());
		us[i] = clock_mono_us() - began;
	}
	c.cpu_us_a_row = (cpu_s() - cpu) * 1e6 / batches / ROWS_OF_A_BATCH;
	c.wall_us_a_row = (double)(clock_mono_us() - start) / batches / ROWS_OF_A_BATCH;
	c.p50_us = percentile(us, batches, 0.5);
	c.p99_us = percentile(us, batches, 0.99);
	free(us);
	return c;
}

static void show_cost(const char *when, const struct cost *c)
{
	printf("%-28s %6.2f us CPU a row (%.0f rows/s on a core), %6.2f us in all; a commit of %d rows p50 %" PRId64
	       " us, p99 %" PRId64 " us\n",
	       when, c->cpu_us_a_row, 1e6 / c->cpu_us_a_row, c->wall_us_a_row, ROWS_OF_A_BATCH, c->p50_us, c->p99_us);
}

struct counting {
	uint64_t rows;
	int64_t start, first;
};

static bool on_row(uint64_t id, const struct audit_event *e, void *arg)
{
	struct counting *c = arg;

	(void)id, (void)e;
	if (c->rows++ == 0)
		c->first = clock_mono_us() - c->start;
	return true;
}

static void ask(const char *what, const struct audit_filter *f)
{
	for (int i = 0; i < 2; i++) { /* the second is warm */
		struct counting c = {.start = clock_mono_us()};
		double cpu = cpu_s();

		struct audit_archive *a = audit_archive_open(&why);
		struct audit_query *q = a == NULL ? NULL : audit_query_new(a, f, &why);

		if (q == NULL)
			die("query");
		while (audit_query_page(q, 1000, 200000, on_row, &c) == 1)
			;
		audit_query_free(&q);
		audit_archive_close(&a);
		if (i == 1)
			printf("%-28s %8" PRIu64 " rows, the first after %.1f ms, all after %.1f ms, %.1f ms CPU\n",
			       what, c.rows, (double)c.first / 1000, (double)(clock_mono_us() - c.start) / 1000,
			       (cpu_s() - cpu) * 1000);
	}
}

static void on_finding(const char *text, void *arg)
{
	(void)arg;
	printf("FINDING %s\n", text);
}

static void check(void)
{
	struct audit_keys keys;
	struct audit_verify_options o = {.keys = &keys, .finding = on_finding};
	struct audit_verified v;
	int64_t start = clock_mono_us();
	double cpu = cpu_s();

	if (audit_first_key_read("first.key", o.store, &keys, &why) != 0 || audit_verify(&o, &v, &why) != 0)
		die("verify");
	double s = (double)(clock_mono_us() - start) / 1e6;

	cpu = cpu_s() - cpu;
	printf("%-28s %8" PRIu64 " rows in %.1f s: %.0f rows/s; %.1f s CPU: %.0f rows/s of a core; %" PRIu64
	       " findings\n",
	       "verify", v.rows, s, (double)v.rows / s, cpu, (double)v.rows / cpu, v.findings);
}

static uint64_t bytes_on_disk(void)
{
	uint32_t *numbers;
	int n = audit_segment_list(&numbers, &why);
	uint64_t bytes = 0;

	for (int i = 0; i < n; i++) {
		char name[AUDIT_SEGMENT_NAME_MAX];

		bytes += audit_segment_bytes(audit_segment_name(numbers[i], name));
	}
	free(numbers);
	return bytes;
}

static void remove_all(const char *dir)
{
	struct dirent *entry;
	DIR *d = opendir(".");

	while (d != NULL && (entry = readdir(d)) != NULL)
		unlink(entry->d_name);
	if (d != NULL)
		closedir(d);
	if (chdir("/") == 0)
		rmdir(dir);
}

/* Rows up to `rows`, spread over the days up to now. */
static void generate(struct audit_store *s, uint64_t rows, unsigned segments, unsigned done)
{
	for (unsigned day = done; day < segments; day++) {
		int64_t offset = -(int64_t)(segments - 1 - day) * DAY_US;
		uint64_t until = rows / segments * (day + 1);

		set_offset(offset);
		while (sequence < until)
			batch(s, 2000, clock_wall_us());
		audit_store_tick(s, &why);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"rows", required_argument, NULL, 'r'},
						{"segments", required_argument, NULL, 's'},
						{"apart", required_argument, NULL, 'a'},
						{"dir", required_argument, NULL, 'd'},
						{"keep", no_argument, NULL, 'k'},
						{NULL, 0, NULL, 0}};
	uint64_t rows = 10000000;
	unsigned segments = 30;
	const char *base = "/tmp";
	bool keep = false;
	char dir[4096];
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'r':
			rows = strtoull(optarg, NULL, 10);
			break;
		case 's':
			segments = (unsigned)atoi(optarg);
			break;
		case 'a':
			keep_going_on((unsigned)atoi(optarg));
			break;
		case 'd':
			base = optarg;
			break;
		case 'k':
			keep = true;
			break;
		default:
			return 2;
		}
	snprintf(dir, sizeof dir, "%s/audit-bench-XXXXXX", base);
	if (mkdtemp(dir) == NULL || chdir(dir) != 0) {
		perror(dir);
		return 1;
	}
	log_init("audit-bench", LOG_ERROR);
	db_one_thread(); /* as the recorder */
	open_clock();
	set_offset(-(int64_t)(segments - 1) * DAY_US);

	struct audit_store *s = audit_store_open(LARGE, &why);

	if (s == NULL)
		die("open");
	while (sequence < 100000)
		batch(s, 2000, clock_wall_us());
	struct cost small = record(s, 2500);

	show_cost("recording at 100,000 rows", &small);
	int64_t start = clock_mono_us();

	generate(s, rows, segments, 0);
	printf("%-28s %8" PRIu64 " rows in %u segments, %.0f s\n", "made", sequence, segments,
	       (double)(clock_mono_us() - start) / 1e6);
	int64_t bare = fdatasync_p99();
	struct cost large = record(s, 2500);

	show_cost("recording at all rows", &large);
	printf("%-28s %.2f\n", "ratio of CPU a row", large.cpu_us_a_row / small.cpu_us_a_row);
	printf("%-28s p99 %" PRId64 " us; allowed for a commit: 3 times that, %" PRId64 " us\n", "a bare fdatasync",
	       bare, 3 * bare);
	audit_store_close(&s);
	s = audit_store_open(LARGE, &why); /* finishes what is left to be finished */
	if (s == NULL)
		die("open");
	start = clock_mono_us();
	while (audit_store_finishing(s)) {
		audit_store_tick(s, &why);
		usleep(10000);
	}
	printf("%-28s %.1f s for all segments, aside\n", "indexing", (double)(clock_mono_us() - start) / 1e6);
	audit_store_close(&s);
	printf("%-28s %.0f\n", "bytes a row", (double)bytes_on_disk() / (double)sequence);
	struct audit_filter f = {.user = "first.last17"};

	ask("one user, all of it", &f);
	f = (struct audit_filter){.limit = 1000};
	ask("the newest 1,000", &f);
	f = (struct audit_filter){.session = session / 2};
	ask("one session", &f);
	check();
	if (keep)
		printf("%-28s %s\n", "kept", dir);
	else
		remove_all(dir);
	return 0;
}
