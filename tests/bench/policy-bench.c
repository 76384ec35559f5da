/* What a decision costs, by the size and shape of the policy; what compiling, an image and opening it cost.
 *
 * Requests are made outside the measured time, half by name and half by address: warm are 1,000 requests that come
 * again and again, random ones come in batches and never came before.  The shapes are measured in turn, round after
 * round, in CPU time; a cost is the least of its rounds, because what is above it is what others on the machine took of
 * its caches, and a ratio is one of costs.
 *
 * usage: policy-bench [--quick] [NUMBER-OF-A-SHAPE] */
#include "config.h"

#include <malloc.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/sealed.h"
#include "policy/image.h"

#define BATCH 256
#define WARM 1000
#define ROUNDS_MAX 41
#define LIST_NAMES 1000000
#define LIST_PREFIXES 100000
#define LIST_REGEXES 10000

static uint64_t state;

static uint64_t next(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(next() % n);
}

/* ---- shapes of policies --------------------------------------------------------------------------------------------
 */

struct shape {
	const char *title;
	uint32_t rules;
	void (*write)(FILE *f, uint32_t rules);
	bool lists, regexes, one_domain;
};

/* A rule's own network, domain and people, by its number. */
static void write_mixed(FILE *f, uint32_t rules)
{
	for (uint32_t i = 0; i < rules; i++) {
		switch (i % 5) {
		case 0:
			fprintf(f, "rule r%u allow group g%u to domain .d%u.example port 443\n", i, i, i);
			break;
		case 1:
			fprintf(f, "rule r%u deny to domain .d%u.example\n", i, i);
			break;
		case 2:
			fprintf(f, "rule r%u allow user u%u to domain d%u.example *.d%u.example port 80 443\n", i, i, i,
				i);
			break;
		case 3:
			fprintf(f, "rule r%u allow group g%u to cidr %u.%u.%u.0/24 port 22 443\n", i, i, 20 + i / 65536,
				i / 256 % 256, i % 256);
			break;
		default:
			fprintf(f, "rule r%u deny client 10.%u.%u.0/24 to domain .d%u.example\n", i, i / 256 % 256,
				i % 256, i);
			break;
		}
	}
}

static void write_groups(FILE *f, uint32_t rules)
{
	for (uint32_t i = 0; i < rules; i++)
		fprintf(f, "rule r%u allow group g%u port 443\n", i, i);
}

static void write_ports(FILE *f, uint32_t rules)
{
	/* There are 65,536 ports: the rest are ranges. */
	for (uint32_t i = 0; i < rules; i++)
		if (i < 65536)
			fprintf(f, "rule r%u allow group all port %u\n", i, i);
		else
			fprintf(f, "rule r%u allow group all port %u-%u\n", i, i - 65536, i - 65536 + 20);
}

static void write_clients(FILE *f, uint32_t rules)
{
	for (uint32_t i = 0; i < rules; i++)
		fprintf(f, "rule r%u allow group all client 10.%u.%u.%u/31\n", i, i / 32768 % 256, i / 128 % 256,
			i % 128 * 2);
}

static void write_one_domain(FILE *f, uint32_t rules)
{
	for (uint32_t i = 0; i < rules; i++)
		fprintf(f, "rule r%u allow user u%u to domain .d1.example\n", i, i);
}

static void write_one_domain_only(FILE *f, uint32_t rules)
{
	for (uint32_t i = 0; i < rules; i++)
		fprintf(f, "rule r%u deny to domain .d1.example during never\n", i);
}

static void write_not(FILE *f, uint32_t rules)
{
	for (uint32_t i = 0; i < rules; i++)
		fprintf(f, "rule r%u allow not group g%u not port 1-65535\n", i, i);
}

static void write_not_user(FILE *f, uint32_t rules)
{
	for (uint32_t i = 0; i < rules; i++)
		fprintf(f, "rule r%u allow not claimed-user g%u\n", i, i);
}

static void write_grid(FILE *f, uint32_t rules)
{
	for (uint32_t i = 0; i < rules; i++)
		fprintf(f, "rule r%u deny group g%u port %u\n", i, i % 316, 1 + i / 316);
}

/* The lists are files of the policy, as large lists are. */
static char *write_list(const char *which, size_t *len)
{
	char *text;
	FILE *f = open_memstream(&text, len);

	if (f == NULL)
		abort();
	for (uint32_t i = 0; strcmp(which, "names") == 0 && i < LIST_NAMES; i++)
		fprintf(f, ".listed-%u.example%u\n", i * 7919u, i % 1000);
	for (uint32_t i = 0; strcmp(which, "nets") == 0 && i < LIST_PREFIXES; i++)
		fprintf(f, "%u.%u.%u.0/25\n", 60 + i / 65536, i / 256 % 256, i % 256);
	for (uint32_t i = 0; strcmp(which, "patterns") == 0 && i < LIST_REGEXES; i++)
		fprintf(f, "(.*\\.)?ads?[0-9]*-%u\\.(net|tracker%u)\\.test\n", i * 31, i);
	fclose(f);
	return text;
}

static struct list {
	const char *name;
	char *text;
	size_t len;
} lists[] = {{"names", NULL, 0}, {"nets", NULL, 0}, {"patterns", NULL, 0}};

static int provide(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name,
		   struct err *why)
{
	(void)arg;
	(void)from;
	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
		if (strcmp(lists[i].name, path) != 0)
			continue;
		*bytes = lists[i].text;
		*len = lists[i].len;
		*name = strdup(path);
		return 0;
	}
	return err_set(why, "there is no list %s", path);
}

static void write_lists(FILE *f, const struct shape *s)
{
	fprintf(f, "set names domain file names\nset nets cidr file nets\n");
	if (s->regexes)
		fprintf(f, "set patterns regex file patterns\nrule patterns deny to regex @patterns\n");
	fprintf(f, "rule names deny to domain @names log alert\nrule nets deny to cidr @nets\n");
}

static char *write_shape(const struct shape *s, size_t *len)
{
	char *text;
	FILE *f = open_memstream(&text, len);

	if (f == NULL)
		abort();
	fprintf(f, "window never { mon 00:00-00:01 except 2026-11-23 2026-11-30 }\n");
	if (s->lists)
		write_lists(f, s);
	s->write(f, s->rules);
	fclose(f);
	return text;
}

/* ---- requests ------------------------------------------------------------------------------------------------------
 */

struct asked {
	struct policy_request request;
	struct name name;
	char user[16], group[16], group2[16];
	const char *groups[3];
};

/* The request of a number: about a rule's own world, or about a listed name or network, or about nothing known. */
static void make_request(struct asked *a, uint64_t number, const struct shape *s)
{
	static const uint16_t ports[] = {443, 443, 80, 22};
	struct policy_request *r = &a->request;

	state = number;
	uint32_t i = below(s->rules), kind = below(8);

	snprintf(a->user, sizeof a->user, "u%u", kind < 4 ? i : below(s->rules));
	snprintf(a->group, sizeof a->group, "g%u", kind < 4 ? i : below(s->rules));
	snprintf(a->group2, sizeof a->group2, "g%u", below(s->write == write_grid ? 316 : s->rules));
	a->groups[0] = a->group;
	a->groups[1] = a->group2;
	a->groups[2] = "all";
	*r = (struct policy_request){.client = addr_v4(0x0a000000 | (i % 65536) << 8 | below(250)),
				     .listener = "main",
				     .user = a->user,
				     .groups = a->groups,
				     .ngroups = 3,
				     .method = POLICY_METHOD_PASSWORD,
				     .command = POLICY_CONNECT,
				     .port = s->write == write_ports  ? (uint16_t)i
					     : s->write == write_grid ? (uint16_t)(1 + below(316))
								      : ports[below(4)]};
	if (below(2) == 0) {
		if (kind == 7)
			a->name.len = (uint8_t)snprintf(a->name.text, sizeof a->name.text, "www.listed-%u.example%u",
							below(LIST_NAMES) * 7919u, below(1000));
		else
			a->name.len = (uint8_t)snprintf(a->name.text, sizeof a->name.text, "www.d%u.example",
							s->one_domain ? 1
							: kind < 6    ? i
								      : below(1000000000));
		r->name = &a->name;
	} else if (kind == 7) {
		r->address = addr_v4(0x3c000000 + (below(LIST_PREFIXES) << 8) + below(256));
	} else {
		r->address = addr_v4(0x14000000 + (i << 8) + below(256));
	}
}

/* ---- measuring -----------------------------------------------------------------------------------------------------
 */

static double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double wall_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct subject {
	const struct shape *shape;
	struct sealed bytes; /* mapped as a worker has them */
	struct policy_image *image;
	double compile_s, check_s, open_ms, peak_mb, word_bytes;
	double cost[2][ROUNDS_MAX], single[2]; /* ns: warm, uniformly random */
	size_t allowed, asked;
};

static void decide(struct subject *s, const struct asked *a)
{
	struct policy_context ctx = {.image = s->image, .now = 1795168800};
	struct policy_decision d;

	if (a->request.name != NULL)
		policy_decide_name(&ctx, &a->request, &d);
	else
		policy_decide_address(&ctx, &a->request, &a->request.address, NULL, 0, &d);
	s->allowed += d.verdict != POLICY_DENY;
	s->asked++;
}

static struct asked batch[BATCH], warm[WARM];
static uint64_t draws = 1;

static void make_warm(const struct subject *s)
{
	for (uint64_t i = 0; i < WARM; i++)
		make_request(&warm[i], i * 0x9e3779b97f4a7c15u, s->shape);
}

static void make_random(const struct subject *s)
{
	for (int i = 0; i < BATCH; i++)
		make_request(&batch[i], ((uint64_t)1 << 40 | draws++) * 0x9e3779b97f4a7c15u, s->shape);
}

/* CPU nanoseconds a decision.  The first time round, warm requests are not yet warm. */
static double measure_warm(struct subject *s, int times)
{
	double start = 0;

	make_warm(s);
	for (int t = -1; t < times; t++) {
		if (t == 0)
			start = cpu_s();
		for (int i = 0; i < WARM; i++)
			decide(s, &warm[i]);
	}
	return (cpu_s() - start) / times / WARM * 1e9;
}

static double measure_random(struct subject *s, int batches)
{
	double spent = 0;

	for (int b = 0; b < batches; b++) {
		make_random(s);
		double start = cpu_s();

		for (int i = 0; i < BATCH; i++)
			decide(s, &batch[i]);
		spent += cpu_s() - start;
	}
	return spent / batches / BATCH * 1e9;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(const double *values, int n)
{
	double sorted[4096];

	memcpy(sorted, values, (size_t)n * sizeof sorted[0]);
	qsort(sorted, (size_t)n, sizeof sorted[0], compare_doubles);
	return sorted[n / 2];
}

static double least(const double *values, int n)
{
	double min = values[0];

	for (int i = 1; i < n; i++)
		min = values[i] < min ? values[i] : min;
	return min;
}

/* The median of single decisions, less what looking at the clock costs. */
static double measure_single(struct subject *s, bool random)
{
	static double each[4096], nothing[1000];

	for (int i = 0; i < 1000; i++) {
		double start = wall_ns();

		nothing[i] = wall_ns() - start;
	}
	for (int n = 0; n < 4096; n++) {
		if (random && n % BATCH == 0)
			make_random(s);
		double start = wall_ns();

		decide(s, random ? &batch[n % BATCH] : &warm[n % WARM]);
		each[n] = wall_ns() - start;
	}
	return median(each, 4096) - median(nothing, 1000);
}

/* ---- compiling -----------------------------------------------------------------------------------------------------
 */

static void die(const char *what)
{
	fprintf(stderr, "policy-bench: %s\n", what);
	exit(1);
}

struct compiled {
	double compile_s, check_s, peak_mb, word_bytes;
	size_t len;
};

/* In a process of its own, so that the peak of its memory is its own; the image comes back through a file. */
static void compile_here(const struct shape *s, FILE *out)
{
	struct policy_diagnostics d = {0};
	struct compiled c = {0};
	uint8_t *data;
	size_t text_len;
	struct err why;
	char *text = write_shape(s, &text_len);
	struct policy_provider provider = {.read = provide};

	for (size_t i = 0; s->lists && i < sizeof lists / sizeof lists[0]; i++)
		lists[i].text = write_list(lists[i].name, &lists[i].len);
	struct rusage before, usage;

	malloc_trim(0);
	getrusage(RUSAGE_SELF, &before);
	double start = cpu_s();
	struct policy_tree *t = policy_parse_with("bench", text, text_len, &provider, &d);

	policy_check(t, &d);
	c.check_s = cpu_s() - start;
	if (d.errors > 0 || policy_compile(t, &data, &c.len, &d) != 0)
		die(d.count > 0 ? d.items[0].message : "the policy does not compile");
	if (policy_image_verify(data, c.len, &why) != 0)
		die(why.text);
	c.compile_s = cpu_s() - start;
	getrusage(RUSAGE_SELF, &usage);
	c.peak_mb = (double)usage.ru_maxrss / 1024;
	struct policy_image *image = policy_image_open(data, c.len, &why);

	for (uint32_t p = 0; p < image_count(image, SEC_PRED); p++) {
		const struct img_pred *pred = IMAGE_AT(image, SEC_PRED, struct img_pred, p);
		const struct img_word *w = IMAGE_AT(image, SEC_WORD, struct img_word, pred->a.first);
		size_t bytes = pred->a.count * sizeof *w;

		if (pred->kind != PRED_DOMAIN || pred->b.count < 1000)
			continue;
		for (uint32_t i = 0; i < pred->a.count; i++)
			if (w[i].text != WORD_FREE)
				bytes += strlen((const char *)image_section(image, SEC_TEXT) + (w[i].text >> 2)) + 1;
		c.word_bytes = (double)bytes / pred->b.count;
	}
	if (fwrite(&c, sizeof c, 1, out) != 1 || fwrite(data, c.len, 1, out) != 1 || fflush(out) != 0)
		die("the image cannot be written");
}

static void prepare(struct subject *s, const struct shape *shape)
{
	FILE *f = tmpfile();
	struct compiled c;
	struct err why;
	int status;

	s->shape = shape;
	fflush(stdout);
	pid_t pid = f == NULL ? -1 : fork();

	if (pid == 0) {
		compile_here(shape, f);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		die("compiling failed");
	rewind(f);
	if (fread(&c, sizeof c, 1, f) != 1)
		die("compiling failed");
	s->compile_s = c.compile_s;
	s->check_s = c.check_s;
	s->peak_mb = c.peak_mb;
	s->word_bytes = c.word_bytes;
	uint8_t *data = malloc(c.len);

	if (data == NULL || fread(data, c.len, 1, f) != 1)
		die("compiling failed");
	fclose(f);
	int fd = sealed_create("policy image", data, c.len, &why);
	double start = cpu_s();

	if (fd < 0 || sealed_map(fd, c.len, &s->bytes, &why) != 0)
		die(why.text);
	s->image = policy_image_open(s->bytes.data, s->bytes.len, &why);
	s->open_ms = (cpu_s() - start) * 1e3;
	if (s->image == NULL)
		die(why.text);
	close(fd);
	free(data);
}

/* ---- the tables ----------------------------------------------------------------------------------------------------
 */

static const struct shape shapes[] = {
	{"10 rules", 10, write_mixed, false, false, false},
	{"1,000 rules", 1000, write_mixed, false, false, false},
	{"10,000 rules", 10000, write_mixed, false, false, false},
	{"100,000 rules", 100000, write_mixed, false, false, false},
	{"100,000 rules and lists", 100000, write_mixed, true, false, false},
	{"the same and 10,000 regexes", 100000, write_mixed, true, true, false},
	{"100,000: only groups differ", 100000, write_groups, false, false, false},
	{"100,000: only ports differ", 100000, write_ports, false, false, false},
	{"100,000: only clients differ", 100000, write_clients, false, false, false},
	{"100,000: one domain, users", 100000, write_one_domain, false, false, true},
	{"100,000: one domain, no more", 100000, write_one_domain_only, false, false, true},
	{"100,000: all `not`", 100000, write_not, false, false, false},
	{"100,000: `not`, of the absent", 100000, write_not_user, false, false, false},
	{"100,000: 316 groups, 316 ports", 100000, write_grid, false, false, false},
};

#define SHAPES (sizeof shapes / sizeof shapes[0])

int main(int argc, char **argv)
{
	static struct subject subjects[SHAPES];
	int rounds = 25, times = 5, batches = 20;
	size_t n = SHAPES, only = SHAPES;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--quick") == 0)
			rounds = 7;
		else if (argv[i][0] != '-')
			only = (size_t)atoi(argv[i]);
	}
	if (sodium_init() < 0)
		return 1;
	/* One shape alone, for a profiler. */
	if (only < SHAPES) {
		prepare(&subjects[0], &shapes[only]);
		printf("%.0f\n", measure_warm(&subjects[0], 20000));
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		prepare(&subjects[i], &shapes[i]);
	for (int r = 0; r < rounds; r++)
		for (size_t i = 0; i < n; i++) {
			subjects[i].cost[0][r] = measure_warm(&subjects[i], times);
			subjects[i].cost[1][r] = measure_random(&subjects[i], batches);
		}
	for (size_t i = 0; i < n; i++)
		for (int kind = 0; kind < 2; kind++) {
			measure_warm(&subjects[i], 1);
			subjects[i].single[kind] = measure_single(&subjects[i], kind == 1);
		}
	double base = least(subjects[0].cost[0], rounds);

	printf("| policy | warm, ns | ratio | median of one | random, ns | ratio | median of one | not denied |\n");
	printf("|---|---:|---:|---:|---:|---:|---:|---:|\n");
	for (size_t i = 0; i < n; i++) {
		const struct subject *s = &subjects[i];

		double cost[2] = {least(s->cost[0], rounds), least(s->cost[1], rounds)};

		printf("| %s | %.0f | %.2f | %.0f | %.0f | %.2f | %.0f | %zu%% |\n", s->shape->title, cost[0],
		       cost[0] / base, s->single[0], cost[1], cost[1] / base, s->single[1],
		       s->allowed * 100 / s->asked);
	}
	printf("\n| policy | parse and check, s | all of compiling, s | peak, MB | image, MB | bytes a list name | "
	       "open, ms |\n");
	printf("|---|---:|---:|---:|---:|---:|---:|\n");
	for (size_t i = 0; i < n; i++) {
		const struct subject *s = &subjects[i];

		printf("| %s | %.2f | %.2f | %.0f | %.1f | %.1f | %.2f |\n", s->shape->title, s->check_s, s->compile_s,
		       s->peak_mb, (double)s->bytes.len / 1e6, s->word_bytes, s->open_ms);
	}
	return 0;
}
