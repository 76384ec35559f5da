/* gatewayctl complete -- WORD ...: what could stand in the place of the last word, one a line.  The completions of all shells ask this
 * and nothing else: the one table of the grammar is here, names are those of the gateway that runs now, and verbs and options that
 * the table does not know are those that --help tells of.
 *
 * Shells put what they get into a command line, and names come from clients: whatever holds more than harmless characters is not
 * offered. */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/change.h"
#include "admin/client.h"
#include "admin/complete.h"
#include "admin/format.h"
#include "admin/session.h"

#define NAMES_MAX 1000
#define WORD_MAX 512
#define TOLD_MAX 64

/* An option is written NAME, or NAME=VALUES where it takes a value; VALUES are words separated by | or one of @file, @dir, @rule,
 * @set, @window, @user, @revision, @ruled, @pending, @session, @block, @hold, @none (nothing to offer).  what: the word that stands
 * behind the verb, the same way; @filter is user=ann and its like, @holding what is done with a hold, and with which. */
#define FILTERS                                                                                                        \
	"user=@user group=@none client=@none to=@none country=@none rule=@rule port=@none text=@none revision=@revision " \
	"session=@session since=15m|2h|1d|30d until=@none"
#define EDITS "if-revision=@revision comment=@none dry-run strict json"
#define TRIALS " yes max-ended=@none confirm=@none"
#define AUDIT_FILTERS                                                                                                  \
	"user=@user client=@none to=@none verdict=allow|deny "                                                         \
	"event=open|connected|denied|ended|login-failed|policy|admin|start|stop|flow|flow-ended|checkpoint|flow-checkpoint|throttle|look " \
	"port=@none country=@none rule=@rule revision=@revision group=@none text=@none session=@session id=@none "      \
	"since=15m|2h|1d|30d until=@none "
#define AUDIT_ROWS AUDIT_FILTERS "zone=@none columns=@none limit=@none order=newest|oldest format=table|csv|json dir=@dir"
#define KEYS                                                                                                           \
	"user|group|client|dest|port|country|rule|revision|listener|method|command|reason|event|hour|weekday|day"

static const struct row {
	const char *noun, *verb; /* verb NULL: the noun has none */
	const char *options, *what;
} grammar[] = {
	{"status", NULL, "json", NULL},
	{"reload", NULL, "force strict json", NULL},
	{"policy", "check", "json strict geoip=@file groups=@file", "@file"},
	{"policy", "fmt", "", "@file"},
	{"policy", "test", "json", "@file"},
	{"policy", "diff", "json at=@none", "@file"},
	{"policy", "apply", EDITS TRIALS, "@file"},
	{"policy", "edit", "dry-run strict if-revision=@revision comment=@none yes max-ended=@none", NULL},
	{"policy", "rollback", EDITS TRIALS, "@ruled"},
	{"policy", "confirm", "json", "@revision"},
	{"policy", "pending", "json", NULL},
	{"policy", "approve", "dry-run strict comment=@none json" TRIALS, "@pending"},
	{"policy", "reject", "reason=@none json", "@pending"},
	{"policy", "impact", "before=@file since=15m|2h|1d|30d until=@none user=@user group=@none geoip=@file asn=@file dir=@dir json", "@file"},
	{"policy", "suggest",
	 "since=15m|2h|1d|30d until=@none user=@user group=@none denied from-monitor=@rule min-count=@none suffix=@none prefix=@none "
	 "prefix6=@none dir=@dir",
	 NULL},
	{"policy", "log", "limit=@none json", NULL},
	{"policy", "show", "json", "@revision"},
	{"policy", "export", "", "@revision"},
	{"policy", "explain",
	 "policy=@file revision=@revision user=@user group=@none claimed-user=@none client=@none listener=@none command=connect|bind|udp "
	 "method=none|password|gssapi|socks4 port=@none at=@none resolves=@none alias=@none geoip=@file asn=@file json",
	 NULL},
	{"rule", "list", "since=15m|2h|1d|30d no-hits json", NULL},
	{"rule", "unused", "json", "30d|90d|365d"},
	{"rule", "expiring", "json", "7d|30d|90d"},
	{"rule", "add", "before=@rule after=@rule first last until=@none " EDITS TRIALS, NULL},
	{"rule", "insert", "before=@rule after=@rule first last until=@none " EDITS TRIALS, NULL},
	{"rule", "move", "before=@rule after=@rule first last " EDITS TRIALS, "@rule"},
	{"rule", "replace", "until=@none " EDITS TRIALS, "@rule"},
	{"rule", "remove", EDITS TRIALS, "@rule"},
	{"rule", "enable", "until=@none " EDITS TRIALS, "@rule"},
	{"rule", "disable", EDITS TRIALS, "@rule"},
	{"set", "list", "json", NULL},
	{"set", "show", "json", "@set"},
	{"set", "create", EDITS TRIALS, NULL},
	{"set", "add", EDITS TRIALS, "@set"},
	{"set", "remove", EDITS TRIALS, "@set"},
	{"set", "import", "replace " EDITS TRIALS, "@set"},
	{"set", "delete", EDITS TRIALS, "@set"},
	{"window", "list", "json", NULL},
	{"window", "add", "tz=@none " EDITS TRIALS, NULL},
	{"window", "replace", "tz=@none " EDITS TRIALS, "@window"},
	{"window", "except", EDITS TRIALS, "@window"},
	{"window", "remove", EDITS TRIALS, "@window"},
	{"session", "list", FILTERS " sort=bytes|age|rate limit=@none json", "@filter"},
	{"session", "show", "json", "@session"},
	{"session", "kill", FILTERS " all reason=@none yes dry-run json", "@filter"},
	{"session", "block", FILTERS " for=15m|1h|1d reason=@none yes dry-run json", "@filter"},
	{"session", "blocks", "json", NULL},
	{"session", "unblock", "json", "@block"},
	{"session", "watch", "sort=rate|bytes|age interval=@none", "@filter"},
	{"top", NULL, "sort=rate|bytes|age interval=@none", "@filter"},
	{"drain", NULL, "undo wait json", NULL},
	{"log", "level", "json", "error|warning|info|debug"},
	{"auth", "list", "json", NULL},
	{"auth", "unlock", "client=@none user=@user", NULL},
	{"auth", "forget", "all", "@user"},
	{"audit", "query", AUDIT_ROWS, NULL},
	{"audit", "tail", AUDIT_ROWS, NULL},
	{"audit", "stats", "by=" KEYS " " AUDIT_ROWS, NULL},
	{"audit", "export", "key=@file new-key=@file verify=@dir signer=@file " AUDIT_ROWS, NULL},
	{"audit", "verify", "key=@file dir=@dir anchor=@file json", NULL},
	{"audit", "why", "geoip=@file asn=@file json dir=@dir", "@session"},
	{"audit", "report", "output=@file since=15m|2h|1d|30d until=@none key=@file anchor=@file dir=@dir", NULL},
	{"audit", "sql", "format=table|csv|json json limit=@none seconds=@none dir=@dir", NULL},
	{"audit", "prune", "keep=30d|90d|400d class=sessions|denials|logins|policy|admin|looks hold=@hold dry-run json", NULL},
	{"audit", "hold", AUDIT_FILTERS "json", "@holding"},
};

#define ROWS (sizeof grammar / sizeof *grammar)

/* The word that is being written. */
static const char *typed;
static unsigned offered;
static int (*run_noun)(int argc, char **argv);

/* ---- offering ----------------------------------------------------------------------------------------------------------- */

static bool harmless(const char *word)
{
	return word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@+=:/,-%")] == '\0' && word[0] != '\0';
}

/* before: what stands before it in the same word, like "user=". */
static void offer(const char *before, const char *word)
{
	char whole[WORD_MAX];

	if (!harmless(word) || snprintf(whole, sizeof whole, "%s%s", before, word) >= (int)sizeof whole)
		return;
	if (strncmp(whole, typed, strlen(typed)) == 0 && offered++ < NAMES_MAX)
		puts(whole);
}

/* What a noun, or a verb of it, says of itself; malloc'd, or NULL. */
static char *help_of(const char *noun, const char *verb)
{
	char words[3][64] = {"", "", "--help"}, *argv[] = {words[0], verb == NULL ? words[2] : words[1], words[2], NULL}, *text = NULL;
	int file = memfd_create("help", MFD_CLOEXEC), out = dup(STDOUT_FILENO);
	off_t len;

	snprintf(words[0], sizeof words[0], "%s", noun);
	snprintf(words[1], sizeof words[1], "%s", verb == NULL ? "" : verb);
	fflush(stdout);
	if (file >= 0 && out >= 0 && dup2(file, STDOUT_FILENO) >= 0) {
		run_noun(verb == NULL ? 2 : 3, argv);
		fflush(stdout);
		dup2(out, STDOUT_FILENO);
		len = lseek(file, 0, SEEK_END);
		text = len < 0 ? NULL : calloc(1, (size_t)len + 1);
		if (text != NULL && pread(file, text, (size_t)len, 0) != len)
			text[0] = '\0';
	}
	close(file);
	close(out);
	return text;
}

static void offer_statements(const char *before, enum ast_statement_kind kind)
{
	struct change c = {0};

	if (change_begin(&c) == ADMIN_FINE)
		for (const struct ast_statement *s = c.tree->first; s != NULL; s = s->next)
			if (s->kind == kind && s->name != NULL)
				offer(before, s->name->text);
	change_clear(&c);
}

struct member {
	const char *before, *key;
	char last[WORD_MAX];
};

static bool offer_member(const json_t *row, void *arg)
{
	struct member *m = arg;
	char buf[FORMAT_TEXT_MAX];
	const char *text = format_member(row, m->key, buf);

	/* Most sessions of a user stand together. */
	if (strcmp(text, m->last) != 0 && snprintf(m->last, sizeof m->last, "%s", text) < (int)sizeof m->last)
		offer(m->before, text);
	return offered < NAMES_MAX;
}

static void offer_of_sessions(const char *before, const char *key)
{
	struct member m = {.before = before, .key = key};
	json_t *end = NULL;

	session_ask(json_pack("{s:s, s:{}, s:s, s:i}", "command", "session-list", "filter", "sort", "age", "limit", 200), offer_member, &m,
		    &end);
	json_decref(end);
}

static void offer_each(const char *before, json_t *array, const char *key)
{
	struct member m = {.before = before, .key = key};
	const json_t *row;
	size_t i;

	json_array_foreach(array, i, row) offer_member(row, &m);
}

static void offer_blocks(const char *before)
{
	int code;
	json_t *reply = client_ask(json_pack("{s:s}", "command", "session-blocks"), NULL, &code);

	offer_each(before, json_object_get(reply, "blocks"), "id");
	json_decref(reply);
}

/* ruled: those that were in force. */
static void offer_revisions(const char *before, bool ruled)
{
	int code;
	json_t *log = revision_fetch_log(100, &code);

	for (size_t i = json_array_size(log); ruled && i-- > 0;) {
		const json_t *approval = json_object_get(json_array_get(log, i), "approval");
		char buf[FORMAT_TEXT_MAX];

		if (approval != NULL && strcmp(format_member(approval, "state", buf), "approved") != 0)
			json_array_remove(log, i);
	}
	offer_each(before, log, "revision");
	json_decref(log);
}

static void offer_pending(const char *before)
{
	int code;
	json_t *pending = revision_fetch_pending(NULL, &code);

	offer_each(before, pending, "revision");
	json_decref(pending);
}

static void offer_holds(const char *before)
{
	int code;
	json_t *reply = client_ask(json_pack("{s:s, s:s}", "command", "audit-retention", "verb", "holds"), NULL, &code);

	offer_each(before, json_object_get(reply, "holds"), "name");
	json_decref(reply);
}

static void offer_filters(void)
{
	char name[64];
	const char *at = FILTERS;

	while (*at != '\0') {
		size_t len = strcspn(at, "=");

		if (len + 2 > sizeof name)
			break;
		memcpy(name, at, len);
		strcpy(name + len, "=");
		offer("", name);
		at += strcspn(at, " ");
		at += *at == ' ';
	}
}

static void offer_values(const char *before, const char *values)
{
	char word[64];
	static const struct {
		const char *name;
		enum ast_statement_kind kind;
	} statements[] = {{"@rule", AST_RULE}, {"@set", AST_SET}, {"@window", AST_WINDOW}};

	for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
		if (strcmp(statements[i].name, values) == 0) {
			offer_statements(before, statements[i].kind);
			return;
		}
	if (strcmp(values, "@file") == 0 || strcmp(values, "@dir") == 0)
		puts(values); /* the shell knows better */
	else if (strcmp(values, "@user") == 0)
		offer_of_sessions(before, "user");
	else if (strcmp(values, "@session") == 0)
		offer_of_sessions(before, "session");
	else if (strcmp(values, "@revision") == 0)
		offer_revisions(before, false);
	else if (strcmp(values, "@ruled") == 0)
		offer_revisions(before, true);
	else if (strcmp(values, "@pending") == 0)
		offer_pending(before);
	else if (strcmp(values, "@block") == 0)
		offer_blocks(before);
	else if (strcmp(values, "@hold") == 0)
		offer_holds(before);
	else if (strcmp(values, "@filter") == 0)
		offer_filters();
	while (*values != '@' && *values != '\0') {
		size_t len = strcspn(values, "|");

		snprintf(word, sizeof word, "%.*s", (int)len, values);
		offer(before, word);
		values += len + (values[len] == '|');
	}
}

/* ---- the grammar -------------------------------------------------------------------------------------------------------- */

/* The next option of a list, its name in name and its values in values (both as long as the list's longest); NULL at its end. */
static const char *next_option(const char *at, char name[64], char values[WORD_MAX])
{
	size_t len = strcspn(at, " "), name_len = strcspn(at, "= ");

	if (*at == '\0')
		return NULL;
	snprintf(name, 64, "%.*s", (int)name_len, at);
	snprintf(values, WORD_MAX, "%.*s", name_len < len ? (int)(len - name_len - 1) : 0, at + name_len + 1);
	at += len;
	return at + (*at == ' ');
}

/* False: it takes no value, or there is no such option. */
static bool values_of(const char *options, const char *wanted, size_t len, char values[WORD_MAX])
{
	char name[64];

	for (const char *at = options; (at = next_option(at, name, values)) != NULL;)
		if (strlen(name) == len && strncmp(name, wanted, len) == 0)
			return values[0] != '\0';
	return false;
}

static void offer_options(const struct row *r)
{
	char name[64], values[WORD_MAX], option[80];

	for (const char *at = r->options; (at = next_option(at, name, values)) != NULL;) {
		snprintf(option, sizeof option, "--%s", name);
		offer("", option);
	}
	offer("", "--help");
}

/* The words that follow mark in a text, and begin with it if it is of the word ("--"). */
static void offer_told(const char *text, const char *mark, bool of_the_word, bool (*known)(const char *word, const void *arg),
		       const void *arg)
{
	char words[TOLD_MAX][64];
	size_t n = 0, i;

	for (const char *at = text; n < TOLD_MAX && at != NULL && (at = strstr(at, mark)) != NULL;) {
		const char *from = of_the_word ? at : at + strlen(mark) + strspn(at + strlen(mark), " ");
		size_t len = strspn(from, "abcdefghijklmnopqrstuvwxyz-");

		at += strlen(mark);
		if (len < 2 || len >= sizeof words[n])
			continue;
		snprintf(words[n], sizeof words[n], "%.*s", (int)len, from);
		for (i = 0; i < n && strcmp(words[i], words[n]) != 0; i++)
			;
		if (i < n || known(words[n], arg))
			continue;
		offer("", words[n++]);
	}
}

static bool is_never_known(const char *word, const void *arg)
{
	(void)arg;
	return strcmp(word, "--help") == 0;
}

static void offer_options_told(const char *noun, const char *verb)
{
	char *text = help_of(noun, verb);

	offer_told(text, "--", true, is_never_known, NULL);
	free(text);
	offer("", "--help");
}

static const struct row *find_row(const char *noun, const char *verb)
{
	for (size_t i = 0; i < ROWS; i++)
		if (strcmp(grammar[i].noun, noun) == 0 &&
		    (grammar[i].verb == NULL || (verb != NULL && strcmp(grammar[i].verb, verb) == 0)))
			return &grammar[i];
	return NULL;
}

static void offer_nouns(void)
{
	for (size_t i = 0; i < ROWS; i++)
		if (i == 0 || strcmp(grammar[i].noun, grammar[i - 1].noun) != 0)
			offer("", grammar[i].noun);
	if (typed[0] == '-') {
		offer("", "--socket");
		offer("", "--help");
		offer("", "--version");
	}
}

static bool is_verb_known(const char *word, const void *noun)
{
	const struct row *r = find_row(noun, word);

	return word[0] == '-' || (r != NULL && r->verb != NULL);
}

static void offer_verbs(const char *noun)
{
	char mark[64], *text = NULL;
	bool known = false;

	for (size_t i = 0; i < ROWS; i++)
		known |= strcmp(grammar[i].noun, noun) == 0;
	if (!known || (size_t)snprintf(mark, sizeof mark, "gatewayctl %s ", noun) >= sizeof mark)
		return;
	for (size_t i = 0; i < ROWS; i++)
		if (strcmp(grammar[i].noun, noun) == 0 && grammar[i].verb != NULL)
			offer("", grammar[i].verb);
	text = help_of(noun, NULL);
	offer_told(text, mark, false, is_verb_known, noun);
	free(text);
	offer("", "--help");
}

/* behind: the word before. */
static void offer_holding(const char *behind)
{
	if (strcmp(behind, "release") == 0)
		offer_holds("");
	else if (strcmp(behind, "hold") == 0)
		offer_values("", "place|release|list");
}

static void complete(const struct row *r, const char *previous)
{
	char values[WORD_MAX], before[64];
	const char *equals = strchr(typed, '=');
	size_t len = equals == NULL ? 0 : (size_t)(equals - typed);

	snprintf(before, sizeof before, "%.*s=", (int)len, typed);
	if (strncmp(previous, "--", 2) == 0 && values_of(r->options, previous + 2, strlen(previous + 2), values))
		offer_values("", values);
	else if (equals != NULL && len < sizeof before - 1 && strncmp(typed, "--", 2) == 0 &&
		 values_of(r->options, typed + 2, len - 2, values))
		offer_values(before, values);
	else if (typed[0] == '-')
		offer_options(r);
	else if (equals != NULL && len < sizeof before - 1 && r->what != NULL && strcmp(r->what, "@filter") == 0 &&
		 values_of(FILTERS, typed, len, values))
		offer_values(before, values);
	else if (r->what != NULL && strcmp(r->what, "@holding") == 0)
		offer_holding(previous);
	else if (r->what != NULL)
		offer_values("", r->what);
}

int admin_complete(int argc, char **argv, int (*run)(int argc, char **argv))
{
	int first = argc >= 2 && strcmp(argv[1], "--") == 0 ? 2 : 1, null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	const struct row *r;

	if (argc <= first)
		return admin_fail(ADMIN_USAGE, "complete takes the words of a command line, the last as far as it is written");
	/* Nobody reads in the middle of a line why there is nothing to offer. */
	if (null >= 0)
		dup2(null, STDERR_FILENO);
	typed = argv[argc - 1];
	run_noun = run;
	while (argc - first > 2 && strcmp(argv[first], "--socket") == 0) {
		client_set_socket(argv[first + 1]);
		first += 2;
	}
	r = argc - first < 2 ? NULL : find_row(argv[first], argc - first < 3 ? NULL : argv[first + 1]);
	if (argc - first == 2 && strcmp(argv[first], "--socket") == 0)
		puts("@file");
	else if (argc - first == 1)
		offer_nouns();
	else if (r != NULL)
		complete(r, argv[argc - 2]);
	else if (argc - first == 2)
		offer_verbs(argv[first]);
	else if (typed[0] == '-' && strcmp(argv[first], "complete") != 0)
		offer_options_told(argv[first], argv[first + 1]);
	return ADMIN_FINE;
}
