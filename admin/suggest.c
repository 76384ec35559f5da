/* gatewayctl policy suggest: rules that allow what was seen, and as little else as can be said.  What was seen becomes rows of what a
 * rule would say; rows that differ in one thing alone become one, so that a rule never allows a pair of things that nobody asked for
 * together. */
#include "config.h"

#include "admin/suggest.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/admin.h"
#include "admin/format.h"
#include "admin/history.h"
#include "admin/policy_load.h"
#include "common/clock.h"
#include "policy/edit.h"
#include "policy/guard.h"
#include "policy/policy.h"

#define DAY_US INT64_C(86400000000)
#define ROWS_MAX 200000
#define LINE_WIDTH 100

static const char usage_text[] =
	"usage: gatewayctl policy suggest [OPTION ...]\n"
	"       gatewayctl policy suggest --from-monitor RULE [OPTION ...]\n"
	"\n"
	"Writes rules that allow what was granted in a time and as little else as can be\n"
	"said, as policy text, with counts and examples as remarks.\n"
	"With --from-monitor, what that monitor rule watched.\n"
	"\n"
	"  --since TIME    14d unless said: 15m, 2h (ago), or YYYY-MM-DD[ HH:MM[:SS]]\n"
	"  --until TIME    before then\n"
	"  --user USER     only what this user asked for\n"
	"  --group GROUP   what members of it asked for, as rules for the group\n"
	"  --denied        what the policy denied instead\n"
	"  --min-count N   only what was asked for at least so often\n"
	"  --suffix N      names that share their last N labels become one suffix\n"
	"  --prefix N      IPv4 addresses that share their first N bits become one prefix\n"
	"  --prefix6 N     the same for IPv6\n"
	"  --dir DIR       read the audit in DIR, without gatewayd\n";

/* What a rule says, in the order in which it says it. */
enum column { WHO_KIND, WHO, COMMAND, FIXED, DEST_KIND, DEST, PORT, COLUMNS };

struct row {
	char *text[COLUMNS]; /* values are as a policy writes them; several are parted by blanks */
	uint64_t count;
	uint64_t best; /* how often the example came */
	char *example; /* of it, without what could end a line */
	int64_t first_s, last_s;
};

struct suggest {
	struct history history;
	const char *monitor;
	bool denied;
	uint64_t min_count;
	unsigned suffix, prefix4, prefix6;
	struct row *rows;
	size_t nrows, room;
	bool full;
	uint64_t seen, beyond, unspeakable, rare;
	char *unspeakable_example; /* of the first of them; NULL: there are none */
	/* The second look, at what came of it. */
	struct policy_context ctx;
	uint64_t covered, uncovered;
};

/* ---- values ------------------------------------------------------------------------------------------------------------- */

/* As a value and never as a set; NULL if a policy cannot hold it as one, or nobody who reads it could tell what it is. */
static char *literal(const char *word, const char *value)
{
	char text[2 * AUDIT_TEXT_MAX + 64];
	char *quoted = format_is_plain(value) ? edit_literal(value) : NULL;
	struct policy_diagnostics d = {0};
	struct policy_tree *t;

	if (quoted == NULL)
		return NULL;
	/* Asking the language itself: what it takes here, it takes there. */
	int len = snprintf(text, sizeof text, "rule x deny %s %s\n", word, quoted);

	t = policy_parse("value", text, (size_t)len, &d);
	policy_check(t, &d);
	if (d.errors > 0) {
		free(quoted);
		quoted = NULL;
	}
	policy_tree_free(t);
	policy_diagnostics_free(&d);
	return quoted;
}

/* The last labels of a name as a suffix; the name itself if it has no more. */
static char *name_value(const struct suggest *s, const struct name *name)
{
	const char *at = name->text + name->len;
	unsigned labels = 0;
	char *text;

	while (s->suffix > 0 && at > name->text && labels < s->suffix) {
		at--;
		labels += *at == '.';
	}
	/* at is the dot before the labels that count. */
	if (s->suffix == 0 || labels < s->suffix || *at != '.')
		return strdup(name->text);
	if (asprintf(&text, "%s", at) < 0)
		abort();
	return text;
}

static char *address_value(const struct suggest *s, const struct addr *a)
{
	unsigned wanted = a->family == ADDR_V4 ? s->prefix4 : s->prefix6, bits = (unsigned)addr_bits(a);
	struct prefix p = {.addr = *a, .bits = (uint8_t)bits};
	char text[PREFIX_TEXT_MAX], address[ADDR_TEXT_MAX];

	if (wanted == 0 || wanted >= bits)
		return strdup(addr_format(a, address));
	p.bits = (uint8_t)wanted;
	for (unsigned i = wanted; i < bits; i++)
		p.addr.bytes[i / 8] &= (uint8_t)~(0x80u >> i % 8);
	return strdup(prefix_format(&p, text));
}

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

static char *copy(const char *text)
{
	char *c = strdup(text);

	if (c == NULL)
		abort();
	return c;
}

static void row_free(struct row *r)
{
	for (size_t i = 0; i < COLUMNS; i++)
		free(r->text[i]);
	free(r->example);
}

static enum column folded; /* what qsort(3) leaves to the end */

static int by_rest(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	int order = 0;

	for (size_t i = 0; i < COLUMNS && order == 0; i++)
		if (i != folded)
			order = strcmp(x->text[i], y->text[i]);
	if (order == 0 && strlen(x->text[folded]) != strlen(y->text[folded]) && folded == PORT)
		order = strlen(x->text[folded]) < strlen(y->text[folded]) ? -1 : 1;
	return order != 0 ? order : strcmp(x->text[folded], y->text[folded]);
}

static bool same_but(const struct row *x, const struct row *y, enum column c)
{
	for (size_t i = 0; i < COLUMNS; i++)
		if (i != c && strcmp(x->text[i], y->text[i]) != 0)
			return false;
	return true;
}

static void absorb(struct row *into, struct row *from)
{
	into->count += from->count;
	into->first_s = from->first_s < into->first_s ? from->first_s : into->first_s;
	into->last_s = from->last_s > into->last_s ? from->last_s : into->last_s;
	if (from->best > into->best) {
		char *example = into->example;

		into->example = from->example;
		into->best = from->best;
		from->example = example;
	}
	row_free(from);
}

/* Rows that differ in this column alone become one that has all its values, each once. */
static void fold(struct suggest *s, enum column c)
{
	size_t kept = 0;

	folded = c;
	if (s->nrows > 0)
		qsort(s->rows, s->nrows, sizeof s->rows[0], by_rest);
	for (size_t i = 0, end; i < s->nrows; i = end) {
		char *all = NULL;
		size_t len;
		FILE *out = open_memstream(&all, &len);

		if (out == NULL)
			abort();
		for (end = i; end < s->nrows && same_but(&s->rows[i], &s->rows[end], c); end++)
			if (end == i || strcmp(s->rows[end - 1].text[c], s->rows[end].text[c]) != 0)
				fprintf(out, "%s%s", end == i ? "" : " ", s->rows[end].text[c]);
		if (fclose(out) != 0)
			abort();
		struct row r = s->rows[i];

		for (size_t k = i + 1; k < end; k++)
			absorb(&r, &s->rows[k]);
		free(r.text[c]);
		r.text[c] = all;
		s->rows[kept++] = r;
	}
	s->nrows = kept;
}

/* What is alike in all becomes one first, so that what is rare can be left out before it is hidden among others. */
static void merge_equal(struct suggest *s)
{
	size_t kept = 0;

	folded = COLUMNS - 1;
	if (s->nrows > 0)
		qsort(s->rows, s->nrows, sizeof s->rows[0], by_rest);
	for (size_t i = 0; i < s->nrows; i++) {
		if (kept > 0 && same_but(&s->rows[kept - 1], &s->rows[i], COLUMNS))
			absorb(&s->rows[kept - 1], &s->rows[i]);
		else
			s->rows[kept++] = s->rows[i];
	}
	s->nrows = kept;
}

static void leave_out_rare(struct suggest *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->nrows; i++) {
		if (s->rows[i].count >= s->min_count) {
			s->rows[kept++] = s->rows[i];
			continue;
		}
		s->rare += s->rows[i].count;
		row_free(&s->rows[i]);
	}
	s->nrows = kept;
}

/* Takes the row over. */
static void add_row(struct suggest *s, struct row *r)
{
	if (s->nrows == ROWS_MAX && !s->full) {
		merge_equal(s);
		s->full = s->nrows > ROWS_MAX / 2; /* merging again would bring little */
	}
	if (s->nrows == ROWS_MAX) {
		s->beyond += r->count;
		row_free(r);
		return;
	}
	if (s->nrows == s->room) {
		s->room = s->room == 0 ? 256 : 2 * s->room;
		s->rows = reallocarray(s->rows, s->room, sizeof s->rows[0]);
		if (s->rows == NULL)
			abort();
	}
	s->rows[s->nrows++] = *r;
}

static char *example_of(const struct past *p)
{
	char user[1200], to[1200], client[ADDR_TEXT_MAX], address[ADDR_TEXT_MAX], buf[FORMAT_TEXT_MAX], session[64], time[64], *text;

	if (asprintf(&text, "%s from %s to %s port %u at %s, session %s",
		     p->request.user != NULL ? format_safe(p->request.user, user, sizeof user) : "nobody", addr_format(&p->request.client, client),
		     p->request.name != NULL ? format_safe(p->request.name->text, to, sizeof to) : addr_format(&p->request.address, address),
		     (unsigned)p->request.port, format_safe(format_member(p->row, "time", buf), time, sizeof time),
		     format_safe(format_member(p->row, "session", (char[FORMAT_TEXT_MAX]){0}), session, sizeof session)) < 0)
		abort();
	return text;
}

/* Who asked: a group if it is about one, the user, or where it came from if nobody logged in.  False: it cannot be written. */
static bool set_who(const struct suggest *s, const struct past *p, struct row *r)
{
	static const char *const methods[POLICY_METHODS] = {[POLICY_METHOD_SOCKS4] = "method socks4 client"};
	const struct policy_request *q = &p->request;
	char address[ADDR_TEXT_MAX];

	r->text[WHO_KIND] = copy(s->history.group != NULL ? "group" : q->user != NULL ? "user" : methods[q->method] != NULL ? methods[q->method]
																: "method none client");
	r->text[WHO] = s->history.group != NULL ? literal("group", s->history.group)
		       : q->user != NULL	? literal("user", q->user)
						: copy(addr_format(&q->client, address));
	return r->text[WHO] != NULL;
}

static struct row row_of(const struct suggest *s, const struct past *p, uint64_t count, bool *sound)
{
	static const char *const commands[] = {[POLICY_CONNECT] = "connect", [POLICY_BIND] = "bind", [POLICY_UDP] = "udp"};
	struct row r = {.count = count, .best = count, .first_s = p->seconds, .last_s = p->seconds};
	char port[16];

	snprintf(port, sizeof port, "%u", (unsigned)p->request.port);
	*sound = set_who(s, p, &r);
	r.text[COMMAND] = copy(commands[p->request.command]);
	r.text[PORT] = copy(port);
	r.example = example_of(p);
	return r;
}

/* Takes over a row that cannot be written. */
static void leave_out(struct suggest *s, struct row *r, uint64_t count)
{
	s->unspeakable += count;
	if (s->unspeakable_example == NULL) {
		s->unspeakable_example = r->example;
		r->example = NULL;
	}
	row_free(r);
}

static void add_named(struct suggest *s, const struct past *p, uint64_t count, const char *fixed)
{
	bool sound;
	struct row r = row_of(s, p, count, &sound);
	char *name = name_value(s, p->request.name);

	r.text[FIXED] = copy(fixed);
	r.text[DEST_KIND] = copy("to domain");
	/* A client chose it: it may be a word of the language. */
	r.text[DEST] = literal("to domain", name);
	free(name);
	if (sound && r.text[DEST] != NULL)
		add_row(s, &r);
	else
		leave_out(s, &r, count);
}

/* The addresses that the guard keeps, unless a rule names them. */
static char *guarded(const struct suggest *s, const struct past *p, bool *others)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	bool any = false;

	if (out == NULL)
		abort();
	*others = p->naddresses == 0;
	for (size_t i = 0; i < p->naddresses; i++) {
		if (!s->denied && p->rules[i] == NULL && s->monitor == NULL)
			continue; /* of the answer, but not allowed */
		if (guard_range(&p->addresses[i], NULL, 0) == NULL) {
			*others = true;
			continue;
		}
		char *value = address_value(s, &p->addresses[i]);

		fprintf(out, "%s%s", any ? " " : "to cidr ", value);
		free(value);
		any = true;
	}
	if (fclose(out) != 0)
		abort();
	return text;
}

static void add_address(struct suggest *s, const struct past *p, uint64_t count)
{
	bool sound;
	struct row r = row_of(s, p, count, &sound);

	r.text[FIXED] = copy("by address");
	r.text[DEST_KIND] = copy("to cidr");
	r.text[DEST] = address_value(s, &p->request.address);
	if (sound)
		add_row(s, &r);
	else
		leave_out(s, &r, count);
}

/* Whether it is one of those that rules are wanted for. */
static bool is_wanted(const struct suggest *s, const struct past *p)
{
	char buf[FORMAT_TEXT_MAX], verdict[FORMAT_TEXT_MAX];
	bool allowed = strcmp(format_member(p->row, "verdict", verdict), "allow") == 0;
	const json_t *monitors = json_object_get(p->detail, "monitors"), *one;
	size_t i;

	if (s->monitor == NULL && !s->denied)
		return allowed;
	if (s->monitor == NULL)
		return !allowed && strncmp(format_member(p->row, "reason", buf), "denied by policy", 16) == 0;
	json_array_foreach(monitors, i, one)
		if (strcmp(format_member(one, "rule", buf), s->monitor) == 0)
			/* What a rule would deny, and is allowed, is what it would break. */
			return allowed || strcmp(format_member(one, "would", verdict), "allow") == 0;
	return false;
}

static void take(const struct past *p, uint64_t count, void *arg)
{
	struct suggest *s = arg;
	bool others;
	char *cidr;

	if (!is_wanted(s, p))
		return;
	s->seen += count;
	if (p->request.name == NULL) {
		add_address(s, p, count);
		return;
	}
	cidr = guarded(s, p, &others);
	if (*cidr != '\0')
		add_named(s, p, count, cidr);
	if (others || *cidr == '\0')
		add_named(s, p, count, "");
	free(cidr);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

struct line {
	FILE *out;
	size_t width;
};

/* Of the first of some words; between quotes there may be blanks, and quotes behind a backslash. */
static size_t word_length(const char *words)
{
	size_t len = 1;

	if (words[0] != '"')
		return strcspn(words, " ");
	while (words[len] != '"')
		len += words[len] == '\\' ? 2 : 1;
	return len + 1;
}

/* In the next line, if len more would be too many in this one. */
static void put_break(struct line *l, size_t len)
{
	bool fits = l->width + len + 1 <= LINE_WIDTH;

	fputs(fits ? " " : " \\\n\t", l->out);
	l->width = fits ? l->width + 1 : 8;
}

/* A word of the language, not parted from its first value, and the values. */
static void put_clause(struct line *l, const char *word, const char *values)
{
	size_t len = strlen(word), first = word_length(values);

	if (len == 0)
		return;
	put_break(l, len + 1 + first);
	l->width += (size_t)fprintf(l->out, "%s", word);
	while (*values != '\0') {
		first = word_length(values);
		put_break(l, first);
		l->width += fwrite(values, 1, first, l->out);
		values += first;
		values += *values == ' ';
	}
}

static void put_rule(FILE *out, const struct row *r, size_t number)
{
	struct line l = {.out = out};
	char first[32] = "", last[32] = "";
	struct tm tm;

	if (gmtime_r(&(time_t){(time_t)r->first_s}, &tm) != NULL)
		strftime(first, sizeof first, "%Y-%m-%d", &tm);
	if (gmtime_r(&(time_t){(time_t)r->last_s}, &tm) != NULL)
		strftime(last, sizeof last, "%Y-%m-%d", &tm);
	fprintf(out, "\n# %" PRIu64 " requests, %s to %s; e.g. %s\n", r->count, first, last, r->example);
	l.width = (size_t)fprintf(out, "rule suggested-%zu allow", number);
	put_clause(&l, r->text[WHO_KIND], r->text[WHO]);
	put_clause(&l, "command", r->text[COMMAND]);
	put_clause(&l, r->text[FIXED], "");
	put_clause(&l, r->text[DEST_KIND], r->text[DEST]);
	put_clause(&l, "port", r->text[PORT]);
	fputc('\n', out);
}

static int by_count(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->count < y->count ? 1 : x->count > y->count ? -1 : 0;
}

static char *rules_text(struct suggest *s)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (out == NULL)
		abort();
	if (s->nrows > 0)
		qsort(s->rows, s->nrows, sizeof s->rows[0], by_count);
	for (size_t i = 0; i < s->nrows; i++)
		put_rule(out, &s->rows[i], i + 1);
	if (fclose(out) != 0)
		abort();
	return text;
}

static void check_one(const struct past *p, uint64_t count, void *arg)
{
	struct suggest *s = arg;
	struct policy_decision each[PAST_ADDRESSES_MAX], d;

	if (!is_wanted(s, p))
		return;
	s->ctx.now = p->seconds;
	if (p->request.name == NULL) {
		policy_decide_address(&s->ctx, &p->request, &p->request.address, NULL, 0, &d);
	} else {
		policy_decide_name(&s->ctx, &p->request, &d);
		if (d.verdict == POLICY_RESOLVE && p->naddresses > 0)
			policy_decide_answers(&s->ctx, &p->request, p->addresses, p->naddresses, p->aliases, p->naliases, each, &d);
	}
	if (d.verdict == POLICY_DENY)
		s->uncovered += count;
	else
		s->covered += count;
}

/* Decides all of it again by what was written: the text is a policy, or it is not shown. */
static int prove(struct suggest *s, const char *text)
{
	struct bundle_file file = {"suggestion", text, strlen(text)};
	struct loaded l;
	int code = ADMIN_REFUSED;

	if (load_bundle(&(struct bundle){&file, 1}, &l) != 0 || l.image == NULL) {
		print_diagnostics(&l.diagnostics, stderr);
		admin_fail(0, "what was seen cannot be written as a policy");
	} else {
		s->ctx.image = l.image;
		s->history.take = check_one;
		code = history_read(&s->history);
	}
	loaded_clear(&l);
	return code;
}

static void print_head(const struct suggest *s)
{
	char since[32] = "", safe[1200];
	struct tm tm;

	if (localtime_r(&(time_t){(time_t)(s->history.since_us / 1000000)}, &tm) != NULL)
		strftime(since, sizeof since, "%Y-%m-%d %H:%M", &tm);
	printf("# Suggested by what was %s since %s: %" PRIu64 " requests.\n",
	       s->monitor != NULL ? "watched by a monitor rule"
	       : s->denied	  ? "denied by the policy"
				  : "granted",
	       since, s->seen);
	if (s->monitor != NULL)
		printf("# The monitor rule is %s.\n", format_safe(s->monitor, safe, sizeof safe));
	printf("# These rules allow %" PRIu64 " of them, decided again at the time of the record.\n", s->covered);
	if (s->uncovered > 0)
		printf("# They do not allow %" PRIu64 ": too rare, not to be written, or kept by the address guard.\n", s->uncovered);
	if (s->rare > 0)
		printf("# Left out: %" PRIu64 " that were asked for less than %" PRIu64 " times.\n", s->rare, s->min_count);
	if (s->unspeakable > 0)
		printf("# Left out: %" PRIu64 " of users or destinations whose names no policy can hold, or would show as others; e.g. %s\n",
		       s->unspeakable, s->unspeakable_example);
	if (s->beyond > 0)
		printf("# Left out: %" PRIu64 ", there are too many kinds; ask for a shorter time, or for --suffix and --prefix.\n", s->beyond);
	if (s->denied)
		printf("# What was denied before a lookup has no address on record: the address guard may refuse it still.\n");
}

static int run(struct suggest *s)
{
	int code;
	char *text;

	s->history.take = take;
	s->history.arg = s;
	code = history_read(&s->history);
	if (code != ADMIN_FINE)
		return code;
	merge_equal(s);
	leave_out_rare(s);
	fold(s, PORT);
	fold(s, DEST);
	fold(s, WHO);
	text = rules_text(s);
	code = prove(s, text);
	if (code == ADMIN_FINE) {
		print_head(s);
		fputs(text, stdout);
	}
	free(text);
	return code;
}

/* ---- words -------------------------------------------------------------------------------------------------------------- */

static bool number(const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	*out = strtoull(text, &end, 10);
	return *end == '\0' && *out >= 1 && *out <= max;
}

/* An exit code, or -1 to go on. */
static int set_option(struct suggest *s, int c)
{
	uint64_t n = 0;

	switch (c) {
	case 's':
	case 'u':
		return history_time(c == 's' ? "--since" : "--until", optarg, c == 'u', c == 's' ? &s->history.since_us : &s->history.until_us) == 0
			       ? -1
			       : ADMIN_USAGE;
	case 'U':
		s->history.user = optarg;
		return -1;
	case 'G':
		s->history.group = optarg;
		return -1;
	case 'D':
		s->denied = true;
		return -1;
	case 'M':
		s->monitor = optarg;
		return -1;
	case 'd':
		s->history.dir = optarg;
		return -1;
	case 'm':
		return number(optarg, UINT32_MAX, &s->min_count) ? -1 : admin_fail(ADMIN_USAGE, "--min-count: \"%s\" is no count", optarg);
	case 'S':
		if (!number(optarg, 127, &n))
			return admin_fail(ADMIN_USAGE, "--suffix: \"%s\" is no number of labels", optarg);
		s->suffix = (unsigned)n;
		return -1;
	case '4':
	case '6':
		if (!number(optarg, c == '4' ? 32 : 128, &n))
			return admin_fail(ADMIN_USAGE, "--prefix%s: \"%s\" is no length of a prefix", c == '4' ? "" : "6", optarg);
		*(c == '4' ? &s->prefix4 : &s->prefix6) = (unsigned)n;
		return -1;
	default:
		fputs(usage_text, c == 'h' ? stdout : stderr);
		return c == 'h' ? ADMIN_FINE : ADMIN_USAGE;
	}
}

int policy_suggest(int argc, char **argv)
{
	static const struct option options[] = {
		{"since", required_argument, NULL, 's'},     {"until", required_argument, NULL, 'u'},  {"user", required_argument, NULL, 'U'},
		{"group", required_argument, NULL, 'G'},     {"denied", no_argument, NULL, 'D'},       {"from-monitor", required_argument, NULL, 'M'},
		{"min-count", required_argument, NULL, 'm'}, {"suffix", required_argument, NULL, 'S'}, {"prefix", required_argument, NULL, '4'},
		{"prefix6", required_argument, NULL, '6'},   {"dir", required_argument, NULL, 'd'},    {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct suggest s = {.min_count = 1, .history = {.since_us = clock_wall_us() - 14 * DAY_US}};
	int c, code = -1;

	optind = 0;
	while (code < 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1)
		code = set_option(&s, c);
	if (code < 0 && optind != argc)
		code = set_option(&s, '?');
	if (code < 0 && s.denied && s.monitor != NULL)
		code = admin_fail(ADMIN_USAGE, "--denied and --from-monitor are two questions");
	/* What comes meanwhile is in neither look. */
	if (s.history.until_us == 0)
		s.history.until_us = clock_wall_us();
	if (code < 0)
		code = run(&s);
	for (size_t i = 0; i < s.nrows; i++)
		row_free(&s.rows[i]);
	free(s.rows);
	free(s.unspeakable_example);
	return code;
}
