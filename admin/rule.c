/* gatewayctl rule: the rules of the policy in force, one by one. */
#include "config.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/change.h"
#include "admin/options.h"
#include "admin/rule.h"

static const char usage_text[] =
	"usage: gatewayctl rule add RULE [--before R | --after R | --first]   (else last)\n"
	"       gatewayctl rule insert RULE --before R | --after R | --first | --last\n"
	"       gatewayctl rule move NAME --before R | --after R | --first | --last\n"
	"       gatewayctl rule replace RULE\n"
	"       gatewayctl rule remove NAME ...\n"
	"       gatewayctl rule enable NAME ...\n"
	"       gatewayctl rule disable NAME ...\n"
	"       gatewayctl rule list | unused 90d | expiring 30d   (see their --help)\n"
	"\n"
	"Each changes the policy in force, in the file of it that holds the rule.\n"
	"RULE is a rule without the word \"rule\": in words, or as one text.\n"
	"\n"
	"  --before R, --after R   beside this rule\n"
	"  --first, --last         before, or behind, all rules\n"
	"  --until DATE            the rule's end: 2027-01-31, or \"2027-01-31 18:00\"\n"
	"  --if-revision N         only if this revision is in force\n"
	"  --comment TEXT          why, for the log of revisions\n"
	"  --yes, --max-ended N    live sessions may end, or so many of them\n"
	"  --confirm TIME          it is undone unless `gatewayctl policy confirm` comes\n"
	"  --dry-run               show the lines that change, check, and change nothing\n"
	"  --strict                warnings refuse the change\n"
	"  --json                  the result as a JSON object\n"
	"\n"
	"gatewayctl rule add pay allow group hr to domain .adp.com --until 2027-01-31\n";

struct order {
	struct change change;
	enum edit_where where;
	bool placed;
	const char *anchor, *until;
	int n; /* words */
	char **words;
};

static int usage(void)
{
	fputs(usage_text, stderr);
	return ADMIN_USAGE;
}

/* ---- words -------------------------------------------------------------------------------------------------------------- */

enum { OPTION_BEFORE = 256, OPTION_AFTER, OPTION_FIRST, OPTION_LAST, OPTION_UNTIL, OPTION_HELP };

static bool take(struct order *o, int c)
{
	switch (c) {
	case OPTION_BEFORE:
	case OPTION_AFTER:
	case OPTION_FIRST:
	case OPTION_LAST:
		if (o->placed)
			return false;
		o->placed = true;
		o->where = c == OPTION_BEFORE ? EDIT_BEFORE : c == OPTION_AFTER ? EDIT_AFTER : c == OPTION_FIRST ? EDIT_FIRST : EDIT_LAST;
		o->anchor = optarg;
		return true;
	case OPTION_UNTIL:
		o->until = optarg;
		return true;
	default:
		return revision_option(&o->change.options, c);
	}
}

/* An exit code, or -1 to go on. */
static int read_order(int argc, char **argv, struct order *o)
{
	static const struct option options[] = {REVISION_OPTIONS,
						{"before", required_argument, NULL, OPTION_BEFORE},
						{"after", required_argument, NULL, OPTION_AFTER},
						{"first", no_argument, NULL, OPTION_FIRST},
						{"last", no_argument, NULL, OPTION_LAST},
						{"until", required_argument, NULL, OPTION_UNTIL},
						{"help", no_argument, NULL, OPTION_HELP},
						{NULL, 0, NULL, 0}};
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == OPTION_HELP) {
			fputs(usage_text, stdout);
			return ADMIN_FINE;
		}
		if (!take(o, c))
			return usage();
	}
	o->n = argc - optind;
	o->words = argv + optind;
	return o->n == 0 ? usage() : -1;
}

/* ---- verbs -------------------------------------------------------------------------------------------------------------- */

/* The first or last rule of the policy, for a rule that is put beside it. */
static const struct ast_statement *edge(const struct policy_tree *t, bool last)
{
	const struct ast_statement *found = NULL;

	for (const struct ast_statement *s = t->first; s != NULL && (last || found == NULL); s = s->next)
		if (s->kind == AST_RULE)
			found = s;
	return found;
}

static char *quoted_moment(const char *moment)
{
	char *value = edit_quote(moment);

	if (value == NULL)
		admin_fail(0, "--until: this is no date: %s", moment);
	return value;
}

/* The text of a rule with its end; NULL when it has said what is wrong. */
static char *text_with_end(struct order *o, char **name)
{
	char *text = change_text("rule", o->n, o->words), *moment, *with = NULL;

	*name = change_name(text, AST_RULE);
	if (*name == NULL) {
		free(text);
		return NULL;
	}
	if (o->until == NULL)
		return text;
	moment = quoted_moment(o->until);
	if (moment != NULL) {
		with = edit_with_end(text, moment);
		if (with == NULL)
			admin_fail(0, "rule '%s' says itself when it ends: it needs no --until", *name);
	}
	free(moment);
	free(text);
	return with;
}

static int find_anchor(const struct order *o, const struct ast_statement **anchor)
{
	*anchor = o->anchor == NULL ? NULL : change_find(&o->change, AST_RULE, o->anchor);
	return o->anchor != NULL && *anchor == NULL ? -1 : 0;
}

static int insert(struct order *o)
{
	const struct ast_statement *anchor;
	char *name = NULL, *text = text_with_end(o, &name);
	int rc = -1;

	if (text != NULL && find_anchor(o, &anchor) == 0) {
		edit_insert(&o->change.edit, text, AST_RULE, o->placed ? o->where : EDIT_LAST, anchor);
		rc = 0;
	}
	free(name);
	free(text);
	return rc;
}

static int replace(struct order *o)
{
	char *name = NULL, *text = text_with_end(o, &name);
	const struct ast_statement *s = text == NULL ? NULL : change_find(&o->change, AST_RULE, name);

	if (s != NULL)
		edit_replace(&o->change.edit, s, text);
	free(name);
	free(text);
	return s == NULL ? -1 : 0;
}

static int move(struct order *o)
{
	const struct ast_statement *s = change_find(&o->change, AST_RULE, o->words[0]), *anchor;

	if (s == NULL || find_anchor(o, &anchor) != 0)
		return -1;
	if (anchor == NULL)
		anchor = edge(o->change.tree, o->where == EDIT_LAST);
	edit_move(&o->change.edit, s, o->where == EDIT_BEFORE || o->where == EDIT_FIRST ? EDIT_BEFORE : EDIT_AFTER, anchor);
	return 0;
}

/* Each rule once. */
static int each_named(struct order *o, void (*edit)(struct order *o, const struct ast_statement *s))
{
	for (int i = 0; i < o->n; i++) {
		const struct ast_statement *s = change_find(&o->change, AST_RULE, o->words[i]);

		if (s == NULL)
			return -1;
		for (int k = 0; k < i; k++)
			if (strcmp(o->words[i], o->words[k]) == 0)
				return admin_fail(-1, "rule '%s' is named twice", o->words[i]);
		edit(o, s);
	}
	return 0;
}

static void remove_one(struct order *o, const struct ast_statement *s)
{
	edit_remove(&o->change.edit, s);
}

static int remove_all(struct order *o)
{
	return each_named(o, remove_one);
}

static void disable_one(struct order *o, const struct ast_statement *s)
{
	if (!edit_enable(&o->change.edit, s, false))
		fprintf(stderr, "rule '%s' is disabled already\n", s->name->text);
}

static int disable(struct order *o)
{
	return each_named(o, disable_one);
}

static void enable_one(struct order *o, const struct ast_statement *s)
{
	if (!edit_enable(&o->change.edit, s, true) && o->until == NULL)
		fprintf(stderr, "rule '%s' is not disabled\n", s->name->text);
	if (o->until != NULL)
		edit_until(&o->change.edit, s, o->until);
}

static int enable(struct order *o)
{
	char *moment = o->until == NULL ? NULL : quoted_moment(o->until);
	int rc;

	if (o->until != NULL && moment == NULL)
		return -1;
	o->until = moment;
	rc = each_named(o, enable_one);
	free(moment);
	return rc;
}

/* ---- the noun ----------------------------------------------------------------------------------------------------------- */

static const struct verb {
	const char *word;
	int (*edit)(struct order *o); /* 0, or -1 when it has said why */
	bool one_word, must_be_placed, may_be_placed, may_end;
} verbs[] = {
	{"add", insert, false, false, true, true},	{"insert", insert, false, true, true, true},
	{"move", move, true, true, true, false},	{"replace", replace, false, false, false, true},
	{"remove", remove_all, false, false, false, false}, {"enable", enable, false, false, false, true},
	{"disable", disable, false, false, false, false},
};

static int run(const struct verb *v, int argc, char **argv)
{
	struct order o = {0};
	int code = read_order(argc, argv, &o);

	if (code >= 0)
		return code;
	if ((v->must_be_placed && !o.placed) || (o.placed && !v->may_be_placed) || (o.until != NULL && !v->may_end) ||
	    (v->one_word && o.n != 1))
		return usage();
	code = change_begin(&o.change);
	if (code == ADMIN_FINE)
		code = v->edit(&o) == 0 ? change_end(&o.change) : ADMIN_REFUSED;
	change_clear(&o.change);
	return code;
}

int admin_rule(int argc, char **argv)
{
	static const struct {
		const char *word;
		int (*run)(int argc, char **argv);
	} looks[] = {{"list", rule_list}, {"unused", rule_unused}, {"expiring", rule_expiring}};

	for (size_t i = 0; argc >= 2 && i < sizeof verbs / sizeof *verbs; i++)
		if (strcmp(argv[1], verbs[i].word) == 0)
			return run(&verbs[i], argc - 1, argv + 1);
	for (size_t i = 0; argc >= 2 && i < sizeof looks / sizeof *looks; i++)
		if (strcmp(argv[1], looks[i].word) == 0)
			return looks[i].run(argc - 1, argv + 1);
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(usage_text, stdout);
		return ADMIN_FINE;
	}
	return admin_no_verb(usage_text, argc, argv);
}
