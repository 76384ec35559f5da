/* gatewayctl top: what lives and what is refused, on a whole screen.  Everything is asked for anew each time, in three small
 * questions of which none makes the gateway do more than look at its sessions once; nothing is kept open in between. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <ncurses.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/session.h"

#define INTERVAL_S 2
#define INTERVAL_MAX_S 3600
#define SESSIONS_MAX 200

static const char usage[] =
	"usage: gatewayctl top [FILTER ...] [--sort rate|bytes|age] [--interval SECONDS]\n"
	"       gatewayctl session watch  (the same)\n"
	"\n"
	"Shows sessions, rates, denials and rules on the whole terminal, for as long as\n"
	"one looks.  FILTER is user=ann, client=10.0.0.0/8, to=.example.com, rule=NAME,\n"
	"port=443, text=TEXT or another of gatewayctl session list.\n"
	"\n"
	"keys: r b a  sort by rate, bytes, age    up down page home  scroll\n"
	"      s d u  only sessions, denials, rules; again: all\n"
	"      space  look now                    q  end\n";

enum panel { PANEL_ALL, PANEL_SESSIONS, PANEL_DENIALS, PANEL_RULES };

struct top {
	json_t *filter;
	const char *sort;
	int64_t interval_s;
	enum panel panel;
	int scroll, said_fd;
	bool colours;
	json_t *status, *rows, *end, *denials, *rules;
	char fault[512]; /* why what is shown is old; "" */
};

/* ---- asking ------------------------------------------------------------------------------------------------------------- */

/* What would have been said on standard error: the screen is taken. */
static void take_what_was_said(struct top *t)
{
	char text[sizeof t->fault], *end;
	ssize_t n = pread(t->said_fd, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	end = strchr(text, '\n');
	if (end != NULL)
		*end = '\0';
	format_safe(strncmp(text, "gatewayctl: ", 12) == 0 ? text + 12 : text, t->fault, sizeof t->fault);
	if (ftruncate(t->said_fd, 0) != 0 || lseek(t->said_fd, 0, SEEK_SET) != 0)
		t->fault[0] = '\0';
}

static bool sort_recent(const json_t *row, void *arg)
{
	struct top *t = arg;

	json_array_append(json_object_get(row, "event") != NULL ? t->denials : t->rules, (json_t *)(uintptr_t)row);
	return true;
}

static int newest_first(const void *a, const void *b)
{
	char x[FORMAT_TEXT_MAX], y[FORMAT_TEXT_MAX];

	return strcmp(format_member(*(json_t *const *)b, "time", y), format_member(*(json_t *const *)a, "time", x));
}

static int most_first(const void *a, const void *b)
{
	int64_t x = format_number(*(json_t *const *)a, "allowed") + format_number(*(json_t *const *)a, "denied");
	int64_t y = format_number(*(json_t *const *)b, "allowed") + format_number(*(json_t *const *)b, "denied");

	return x > y ? -1 : x < y;
}

static json_t *sorted(json_t *array, int (*compare)(const void *, const void *))
{
	size_t n = json_array_size(array);
	json_t **order = calloc(n + 1, sizeof *order), *result = json_array();

	for (size_t i = 0; order != NULL && i < n; i++)
		order[i] = json_array_get(array, i);
	if (order != NULL)
		qsort(order, n, sizeof *order, compare);
	for (size_t i = 0; order != NULL && i < n; i++)
		json_array_append(result, order[i]);
	free(order);
	json_decref(array);
	return result;
}

/* Workers tell of their rules apart. */
static json_t *joined(json_t *rules)
{
	json_t *sum = json_object(), *all = json_array(), *one;
	const char *name;
	size_t i;

	json_array_foreach(rules, i, one)
	{
		char buf[FORMAT_TEXT_MAX];
		json_t *before = json_object_get(sum, format_member(one, "rule", buf));
		int64_t allowed = format_number(one, "allowed") + format_number(before, "allowed");
		int64_t denied = format_number(one, "denied") + format_number(before, "denied");

		json_object_set_new(sum, format_member(one, "rule", buf),
				    json_pack("{s:O, s:I, s:I}", "rule", json_object_get(one, "rule"), "allowed", (json_int_t)allowed,
					      "denied", (json_int_t)denied));
	}
	json_object_foreach(sum, name, one) json_array_append(all, one);
	json_decref(sum);
	json_decref(rules);
	return sorted(all, most_first);
}

static void forget(struct top *t)
{
	json_decref(t->status);
	json_decref(t->rows);
	json_decref(t->end);
	json_decref(t->denials);
	json_decref(t->rules);
	t->status = t->rows = t->end = t->denials = t->rules = NULL;
}

/* An exit code. */
static int look(struct top *t)
{
	struct top fresh = *t;
	int code;
	json_t *end = NULL;

	fresh.rows = fresh.end = NULL;
	fresh.denials = json_array();
	fresh.rules = json_array();
	fresh.status = client_ask(json_pack("{s:s}", "command", "status"), NULL, &code);
	if (fresh.status != NULL)
		code = session_sorted(t->filter, t->sort, SESSIONS_MAX, &fresh.rows, &fresh.end);
	if (fresh.status != NULL && code == ADMIN_FINE)
		code = session_ask(json_pack("{s:s}", "command", "session-recent"), sort_recent, &fresh, &end);
	json_decref(end);
	fflush(stderr);
	if (code != ADMIN_FINE) {
		take_what_was_said(t);
		forget(&fresh);
		return code;
	}
	forget(t);
	t->status = fresh.status;
	t->rows = fresh.rows;
	t->end = fresh.end;
	t->denials = sorted(fresh.denials, newest_first);
	t->rules = joined(fresh.rules);
	t->fault[0] = '\0';
	return ADMIN_FINE;
}

/* ---- drawing ------------------------------------------------------------------------------------------------------------ */

/* One line, cut at the edge; text is printable ASCII. */
static void put(int y, attr_t how, const char *text)
{
	int width = getmaxx(stdscr);

	if (y < 0 || y >= getmaxy(stdscr))
		return;
	attrset(how);
	mvaddnstr(y, 0, text, width);
	if (how & A_REVERSE)
		for (int x = (int)strlen(text); x < width; x++)
			mvaddch(y, x, ' ');
	attrset(A_NORMAL);
}

static attr_t red(const struct top *t)
{
	return t->colours ? (attr_t)COLOR_PAIR(1) : A_BOLD;
}

static double real(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static void draw_head(const struct top *t)
{
	const json_t *s = json_object_get(t->status, "status"), *w = json_object_get(s, "workers"), *r = json_object_get(s, "rates");
	char up[FORMAT_TEXT_MAX], down[FORMAT_TEXT_MAX], since[FORMAT_TEXT_MAX], state[FORMAT_TEXT_MAX], safe[128], text[1024];

	snprintf(text, sizeof text, "%" PRId64 " sessions  %.1f/s granted  %.1f/s denied  %s/s up  %s/s down  audit %s  r%" PRId64 "  up %s%s",
		 format_number(w, "sessions"), real(r, "granted"), real(r, "denied") + real(r, "login_failed"),
		 format_bytes((uint64_t)real(r, "bytes_up"), up), format_bytes((uint64_t)real(r, "bytes_down"), down),
		 format_safe(format_member(json_object_get(s, "audit"), "state", state), safe, sizeof safe), format_number(s, "revision"),
		 format_duration(format_number(s, "uptime_s") * 1000000, since),
		 json_is_true(json_object_get(s, "draining")) ? "  DRAINING" : "");
	put(0, A_BOLD, text);
	if (t->fault[0] != '\0') {
		snprintf(text, sizeof text, "! %s", t->fault);
		put(0, red(t) | A_BOLD, text);
	}
}

static void session_line(const json_t *row, int width, char *out, size_t size)
{
	char id[32], user[64], client[64], to[700], rule[96], rate[FORMAT_TEXT_MAX], bytes[FORMAT_TEXT_MAX], age[FORMAT_TEXT_MAX],
		buf[FORMAT_TEXT_MAX];

	format_safe(format_member(row, "session", buf), id, sizeof id);
	format_safe(format_member(row, "user", buf), user, sizeof user);
	format_safe(format_member(row, "client", buf), client, sizeof client);
	format_safe(format_member(row, "rule", buf), rule, sizeof rule);
	session_destination(row, to, sizeof to);
	format_bytes((uint64_t)format_number(row, "rate"), rate);
	format_bytes((uint64_t)(format_number(row, "bytes_up") + format_number(row, "bytes_down")), bytes);
	format_duration(format_number(row, "duration_us"), age);
	if (width < 60)
		snprintf(out, size, "%8s/s %-.10s %s", rate, user[0] == '\0' ? client : user, to);
	else if (width < 110)
		snprintf(out, size, "%10s/s %10s %-12.12s %-15.15s %s", rate, bytes, user, client, to);
	else
		snprintf(out, size, "%-16s %10s/s %10s %13s %-16.16s %-22.22s %-20.20s %s", id, rate, bytes, age, user, client, rule, to);
}

static const char *session_titles(int width)
{
	return width < 60    ? "    RATE   USER DESTINATION"
	       : width < 110 ? "      RATE        BYTES USER         CLIENT          DESTINATION"
			     : "SESSION                RATE        BYTES           AGE USER             CLIENT                 RULE         "
			       "        DESTINATION";
}

static void denial_line(const json_t *row, char *out, size_t size)
{
	char time[64], user[64], client[64], to[700], rule[96], reason[600], buf[FORMAT_TEXT_MAX];

	format_safe(format_member(row, "time", buf), time, sizeof time);
	format_safe(format_member(row, "user", buf), user, sizeof user);
	format_safe(format_member(row, "client", buf), client, sizeof client);
	format_safe(format_member(row, "rule", buf), rule, sizeof rule);
	format_safe(format_member(row, "reason", buf), reason, sizeof reason);
	session_destination(row, to, sizeof to);
	/* "2026-11-20T19:30:01.123456Z": the time of day is enough. */
	snprintf(out, size, "%.8s %-12.12s %-15.15s %s%s%s  %s", strlen(time) > 19 ? time + 11 : time, user, client, to,
		 rule[0] == '\0' ? "" : " by ", rule, reason);
}

static void rule_line(const json_t *row, char *out, size_t size)
{
	char rule[300], buf[FORMAT_TEXT_MAX];

	snprintf(out, size, "%10" PRId64 " %10" PRId64 " %s", format_number(row, "allowed"), format_number(row, "denied"),
		 format_safe(format_member(row, "rule", buf), rule, sizeof rule));
}

/* Rows from y on, height of them, the title among them. */
static void draw_panel(const struct top *t, enum panel what, int y, int height, int scroll)
{
	const json_t *rows = what == PANEL_SESSIONS ? t->rows : what == PANEL_DENIALS ? t->denials : t->rules;
	int width = getmaxx(stdscr);
	char text[2048];

	put(y, A_REVERSE,
	    what == PANEL_SESSIONS  ? session_titles(width)
	    : what == PANEL_DENIALS ? "DENIED   USER         CLIENT          DESTINATION, RULE AND REASON (times are UTC)"
				    : "   ALLOWED     DENIED RULE");
	for (int i = 0; i + 1 < height; i++) {
		const json_t *row = json_array_get(rows, (size_t)(i + scroll));

		if (row == NULL)
			break;
		if (what == PANEL_SESSIONS)
			session_line(row, width, text, sizeof text);
		else if (what == PANEL_DENIALS)
			denial_line(row, text, sizeof text);
		else
			rule_line(row, text, sizeof text);
		put(y + 1 + i, what == PANEL_DENIALS ? red(t) : A_NORMAL, text);
	}
}

static void draw_foot(const struct top *t)
{
	char text[256];

	snprintf(text, sizeof text, "by %s, %" PRId64 " match  q end  r b a sort  s d u panels", t->sort,
		 format_number(t->end, "sessions"));
	put(getmaxy(stdscr) - 1, A_DIM, text);
}

static void draw(struct top *t)
{
	int height = getmaxy(stdscr), body = height - 2, denials, rules;
	enum panel panel = t->panel;

	erase();
	draw_head(t);
	/* Where there is no room for all, sessions are what one looks at. */
	if (panel == PANEL_ALL && body < 14)
		panel = PANEL_SESSIONS;
	if (panel != PANEL_ALL) {
		int n = (int)json_array_size(panel == PANEL_SESSIONS ? t->rows : panel == PANEL_DENIALS ? t->denials : t->rules);

		t->scroll = t->scroll > n - 1 ? n - 1 : t->scroll;
		t->scroll = t->scroll < 0 ? 0 : t->scroll;
		draw_panel(t, panel, 1, body, t->scroll);
	} else {
		denials = body / 4 < 12 ? body / 4 : 12;
		rules = body / 5 < 10 ? body / 5 : 10;
		t->scroll = t->scroll < 0 ? 0 : t->scroll;
		draw_panel(t, PANEL_SESSIONS, 1, body - denials - rules, t->scroll);
		draw_panel(t, PANEL_DENIALS, 1 + body - denials - rules, denials, 0);
		draw_panel(t, PANEL_RULES, 1 + body - rules, rules, 0);
	}
	if (height > 4)
		draw_foot(t);
	refresh();
}

/* ---- keys --------------------------------------------------------------------------------------------------------------- */

static void toggle(struct top *t, enum panel panel)
{
	t->panel = t->panel == panel ? PANEL_ALL : panel;
	t->scroll = 0;
}

/* What a key asks for: false, to end; *now: to look at once. */
static bool on_key(struct top *t, int key, bool *now)
{
	int page = getmaxy(stdscr) > 6 ? getmaxy(stdscr) - 4 : 1;

	switch (key) {
	case 'q':
	case 'Q':
	case 3: /* Ctrl-C, where the terminal makes no signal of it */
		return false;
	case 'r':
	case 'b':
	case 'a':
		t->sort = key == 'r' ? "rate" : key == 'b' ? "bytes" : "age";
		*now = true;
		break;
	case ' ':
		*now = true;
		break;
	case 's':
		toggle(t, PANEL_SESSIONS);
		break;
	case 'd':
		toggle(t, PANEL_DENIALS);
		break;
	case 'u':
		toggle(t, PANEL_RULES);
		break;
	case KEY_DOWN:
		t->scroll++;
		break;
	case KEY_UP:
		t->scroll--;
		break;
	case KEY_NPAGE:
		t->scroll += page;
		break;
	case KEY_PPAGE:
		t->scroll -= page;
		break;
	case KEY_HOME:
		t->scroll = 0;
		break;
	default:
		break;
	}
	return true;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static volatile sig_atomic_t interrupted;
static struct sigaction before_interrupt;

/* Ctrl-C is a way to end as good as any.  A second one, while the gateway is being waited for, does what it does elsewhere. */
static void on_interrupt(int number)
{
	interrupted = 1;
	sigaction(number, &before_interrupt, NULL);
}

/* A key, or ERR when none came in that time, or at a signal.  A signal between looking and waiting is not missed. */
static int next_key(int64_t wait_ms)
{
	struct timespec wait = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000};
	struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
	sigset_t held, before;
	int key;

	timeout(0);
	errno = 0;
	key = getch();
	if (key != ERR || errno == EIO)
		return key;
	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	sigprocmask(SIG_BLOCK, &held, &before);
	if (!interrupted)
		ppoll(&keys, 1, &wait, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = 0;
	return interrupted ? ERR : getch();
}

static void watch(struct top *t)
{
	int64_t due_ms = now_ms() + t->interval_s * 1000;
	bool going = true, now = false;

	while (going && !interrupted) {
		draw(t);
		int64_t left = due_ms - now_ms();
		int key = next_key(left > 0 ? left : 0);

		now = false;
		if (key == ERR && errno == EIO)
			return; /* the terminal has gone */
		if (key != ERR)
			going = on_key(t, key, &now);
		if (going && !interrupted && (now || now_ms() >= due_ms)) {
			look(t);
			due_ms = now_ms() + t->interval_s * 1000;
		}
	}
}

/* ---- the screen --------------------------------------------------------------------------------------------------------- */

static int open_screen(struct top *t, SCREEN **screen)
{
	const char *no_color = getenv("NO_COLOR");

	*screen = newterm(NULL, stdout, stdin);
	if (*screen == NULL)
		return admin_fail(ADMIN_REFUSED, "this terminal (TERM=%s) cannot be drawn on: set TERM to what it is",
				  getenv("TERM") == NULL ? "" : getenv("TERM"));
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	curs_set(0);
	t->colours = (no_color == NULL || no_color[0] == '\0') && has_colors() && start_color() == OK && use_default_colors() == OK &&
		     init_pair(1, COLOR_RED, -1) == OK;
	return -1;
}

static int show(struct top *t)
{
	int stderr_fd = dup(STDERR_FILENO), code;
	SCREEN *screen = NULL;

	/* The first look tells on standard error, as any command does, why there is nothing to look at. */
	code = look(t);
	if (code != ADMIN_FINE)
		return code;
	t->said_fd = memfd_create("said", MFD_CLOEXEC);
	if (t->said_fd < 0 || stderr_fd < 0)
		return admin_fail(ADMIN_REFUSED, "out of descriptors or memory");
	code = open_screen(t, &screen);
	if (code >= 0)
		return code;
	dup2(t->said_fd, STDERR_FILENO);
	sigaction(SIGINT, &(struct sigaction){.sa_handler = on_interrupt}, &before_interrupt);
	watch(t);
	dup2(stderr_fd, STDERR_FILENO);
	endwin();
	delscreen(screen);
	close(t->said_fd);
	close(stderr_fd);
	return ADMIN_FINE;
}

static int parse(struct top *t, int argc, char **argv)
{
	static const struct option options[] = {{"sort", required_argument, NULL, 'S'},
						{"interval", required_argument, NULL, 'i'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	char *end;
	int c, code = -1;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1)
		switch (c) {
		case 'S':
			t->sort = optarg;
			break;
		case 'i':
			t->interval_s = strtoll(optarg, &end, 10);
			if (*end != '\0' || t->interval_s < 1 || t->interval_s > INTERVAL_MAX_S)
				return admin_fail(ADMIN_USAGE, "--interval: \"%s\" is not 1 to %d seconds", optarg, INTERVAL_MAX_S);
			break;
		case 'h':
			fputs(usage, stdout);
			return ADMIN_FINE;
		default:
			fputs(usage, stderr);
			return ADMIN_USAGE;
		}
	if (strcmp(t->sort, "rate") != 0 && strcmp(t->sort, "bytes") != 0 && strcmp(t->sort, "age") != 0)
		return admin_fail(ADMIN_USAGE, "--sort: \"%s\" is not rate, bytes or age", t->sort);
	for (; code < 0 && optind < argc; optind++)
		code = session_filter_word(t->filter, argv[optind]);
	return code;
}

int admin_top(int argc, char **argv)
{
	struct top t = {.filter = json_object(), .sort = "rate", .interval_s = INTERVAL_S, .said_fd = -1};
	int code = parse(&t, argc, argv);

	if (code < 0 && (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO)))
		code = admin_fail(ADMIN_USAGE, "top needs a terminal; for programs there is gatewayctl session list --sort rate --json");
	if (code < 0)
		code = show(&t);
	forget(&t);
	json_decref(t.filter);
	return code;
}
