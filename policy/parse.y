/* The grammar of gateway-policy(5).  Actions build the tree and do nothing else: what a value means is decided later. */
%define api.pure full
%define api.prefix {policy_yy}
%define api.location.type {struct ast_place}
%define parse.error custom
%define parse.lac full
%locations
%lex-param {void *scanner}
%parse-param {void *scanner} {struct parser *parser}
%expect 0

%code requires {
#include "policy/parse_priv.h"
}

%code {
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/diag.h"
#include "policy/words.h"

#define YYLLOC_DEFAULT(Current, Rhs, N) \
	((Current) = (N) > 0 ? YYRHSLOC(Rhs, 1) : YYRHSLOC(Rhs, 0))

int policy_yylex(POLICY_YYSTYPE *value, struct ast_place *at, void *scanner);
int policy_yylex_init_extra(struct parser *extra, void **scanner);
int policy_yylex_destroy(void *scanner);
struct yy_buffer_state *policy_yy_scan_bytes(const char *bytes, int len, void *scanner);
static void policy_yyerror(const struct ast_place *at, void *scanner, struct parser *parser, const char *message);
static struct ast_statement *statement(struct parser *p, enum ast_statement_kind kind, const struct ast_place *at,
				       const struct ast_place *last, const struct ast_place *end);
static struct ast_clause *clause(struct parser *p, enum ast_clause_kind kind, const struct ast_place *at,
				 struct ast_values values);
static struct ast_values one(struct ast_value *v);
static struct ast_list *read_list(struct parser *p, const struct ast_value *path);
static void include(struct parser *p, const struct ast_value *path);
}

%union {
	struct ast_value *value;
	struct ast_values values;
	struct ast_clause *clause;
	struct ast_clauses clauses;
	enum ast_clause_kind clause_kind;
	enum ast_set_kind set_kind;
	bool yes;
}

%token END 0 "end of file"
%token EOL "end of line"
%token <value> WORD "a word" STRING "a quoted text" REFERENCE "an @set"
%token ALIAS "alias" ALLOW "allow" ANSWERS "answers" ASN "asn" AT "at" BY "by" CIDR "cidr" CLAIMED_USER "claimed-user"
%token GRACE "grace"
%token CLIENT "client" COMMAND "command" COMMENT "comment" COUNTRY "country" DEFAULT "default" DENY "deny" DISABLED "disabled"
%token DOMAIN "domain" DURING "during" EXCEPT "except" EXPECT "expect" FILE_ "file" FROM "from" GROUP "group"
%token INCLUDE "include" INTERNAL "internal" LISTENER "listener" LOG "log" METHOD "method" MONITOR "monitor"
%token NAT64_PREFIX "nat64-prefix" NOT "not" OWNER "owner" PORT "port" REGEX "regex" RESOLVES "resolves"
%token RULE "rule" SET "set" SOURCE "source" STRENGTH "strength" TICKET "ticket" TO "to" TZ "tz" UNTIL "until"
%token USER "user" WINDOW "window"

%type <value> value plain
%type <values> values values_opt except_opt
%type <clause> rule_clause condition expect_clause
%type <clauses> rule_clauses expect_clauses
%type <clause_kind> condition_word to_word option_word expect_one expect_many
%type <set_kind> set_kind
%type <yes> action disabled_opt monitor_opt
%type <value> tz_opt

%%

policy:
	  %empty
	| policy statement
	;

statement:
	  EOL
	| TZ plain EOL {
		struct ast_statement *s = statement(parser, AST_TZ, &@1, &@3, &@3);

		s->zone = $2;
	}
	| ANSWERS plain EOL {
		struct ast_statement *s = statement(parser, AST_ANSWERS, &@1, &@3, &@3);

		s->values = one($2);
	}
	| GRACE plain EOL {
		struct ast_statement *s = statement(parser, AST_GRACE, &@1, &@3, &@3);

		s->values = one($2);
	}
	| NAT64_PREFIX values EOL {
		struct ast_statement *s = statement(parser, AST_NAT64, &@1, &@3, &@3);

		s->values = $2;
	}
	| DEFAULT action EOL {
		struct ast_statement *s = statement(parser, AST_DEFAULT, &@1, &@3, &@3);

		s->allow = $2;
	}
	| SET plain set_kind '{' values_opt '}' EOL {
		struct ast_statement *s = statement(parser, AST_SET, &@1, &@6, &@7);

		s->open = @4.offset;
		s->close = @6.offset;
		s->name = $2;
		s->set_kind = $3;
		s->values = $5;
	}
	| SET plain set_kind FILE_ plain EOL {
		struct ast_statement *s = statement(parser, AST_SET, &@1, &@6, &@6);

		s->name = $2;
		s->set_kind = $3;
		s->list = read_list(parser, $5);
	}
	| INCLUDE plain EOL {
		struct ast_statement *s = statement(parser, AST_INCLUDE, &@1, &@3, &@3);

		s->values = one($2);
		include(parser, $2);
	}
	| WINDOW plain tz_opt '{' values_opt except_opt '}' EOL {
		struct ast_statement *s = statement(parser, AST_WINDOW, &@1, &@7, &@8);

		s->open = @4.offset;
		s->close = @7.offset;
		s->name = $2;
		s->zone = $3;
		s->values = $5;
		s->except = $6;
	}
	| RULE plain disabled_opt monitor_opt action rule_clauses EOL {
		struct ast_statement *s = statement(parser, AST_RULE, &@1, &@7, &@7);

		s->name = $2;
		if ($3)
			s->disabled = @3;
		s->monitor = $4;
		s->allow = $5;
		s->clauses = $6;
	}
	| EXPECT action expect_clauses EOL {
		struct ast_statement *s = statement(parser, AST_EXPECT, &@1, &@4, &@4);

		s->allow = $2;
		s->clauses = $3;
	}
	| error EOL {
		parser->tree->damaged = true;
		yyerrok;
	}
	;

action:
	  ALLOW { $$ = true; }
	| DENY { $$ = false; }
	;

disabled_opt:
	  %empty { $$ = false; }
	| DISABLED { $$ = true; }
	;

monitor_opt:
	  %empty { $$ = false; }
	| MONITOR { $$ = true; }
	;

tz_opt:
	  %empty { $$ = NULL; }
	| TZ plain { $$ = $2; }
	;

plain:
	  WORD
	| STRING
	;

value:
	  plain
	| REFERENCE
	;

values:
	  value { $$ = one($1); }
	| values value {
		$$ = $1;
		ast_values_append(&$$, $2);
	}
	;

values_opt:
	  %empty { $$ = (struct ast_values){0}; }
	| values
	;

except_opt:
	  %empty { $$ = (struct ast_values){0}; }
	| EXCEPT values { $$ = $2; }
	;

set_kind:
	  CIDR { $$ = AST_SET_CIDR; }
	| DOMAIN { $$ = AST_SET_DOMAIN; }
	| REGEX { $$ = AST_SET_REGEX; }
	| PORT { $$ = AST_SET_PORT; }
	| USER { $$ = AST_SET_USER; }
	| GROUP { $$ = AST_SET_GROUP; }
	| COUNTRY { $$ = AST_SET_COUNTRY; }
	| ASN { $$ = AST_SET_ASN; }
	;

rule_clauses:
	  %empty { $$ = (struct ast_clauses){0}; }
	| rule_clauses rule_clause {
		$$ = $1;
		ast_clauses_append(&$$, $2);
	}
	;

rule_clause:
	  condition
	| NOT condition {
		$$ = $2;
		$$->negated = true;
		$$->at = @1;
	}
	| INTERNAL { $$ = clause(parser, AST_INTERNAL, &@1, (struct ast_values){0}); }
	| option_word plain { $$ = clause(parser, $1, &@1, one($2)); }
	;

condition:
	  condition_word values { $$ = clause(parser, $1, &@1, $2); }
	| TO to_word values { $$ = clause(parser, $2, &@1, $3); }
	;

condition_word:
	  CLIENT { $$ = AST_CLIENT; }
	| LISTENER { $$ = AST_LISTENER; }
	| USER { $$ = AST_USER; }
	| GROUP { $$ = AST_GROUP; }
	| CLAIMED_USER { $$ = AST_CLAIMED_USER; }
	| METHOD { $$ = AST_METHOD; }
	| STRENGTH { $$ = AST_STRENGTH; }
	| COMMAND { $$ = AST_COMMAND; }
	| PORT { $$ = AST_PORT; }
	| DURING { $$ = AST_DURING; }
	| BY { $$ = AST_BY; }
	;

to_word:
	  CIDR { $$ = AST_TO_CIDR; }
	| DOMAIN { $$ = AST_TO_DOMAIN; }
	| REGEX { $$ = AST_TO_REGEX; }
	| COUNTRY { $$ = AST_TO_COUNTRY; }
	| ASN { $$ = AST_TO_ASN; }
	;

option_word:
	  FROM { $$ = AST_FROM; }
	| UNTIL { $$ = AST_UNTIL; }
	| SOURCE { $$ = AST_SOURCE; }
	| LOG { $$ = AST_LOG; }
	| OWNER { $$ = AST_OWNER; }
	| TICKET { $$ = AST_TICKET; }
	| COMMENT { $$ = AST_COMMENT; }
	;

expect_clauses:
	  %empty { $$ = (struct ast_clauses){0}; }
	| expect_clauses expect_clause {
		$$ = $1;
		ast_clauses_append(&$$, $2);
	}
	;

expect_clause:
	  expect_one plain { $$ = clause(parser, $1, &@1, one($2)); }
	| expect_many values { $$ = clause(parser, $1, &@1, $2); }
	| RULE DEFAULT { $$ = clause(parser, AST_BY_RULE, &@1, one(ast_value_new(parser->tree, "default", 7, &@2))); }
	;

expect_one:
	  CLIENT { $$ = AST_CLIENT; }
	| LISTENER { $$ = AST_LISTENER; }
	| USER { $$ = AST_USER; }
	| CLAIMED_USER { $$ = AST_CLAIMED_USER; }
	| METHOD { $$ = AST_METHOD; }
	| COMMAND { $$ = AST_COMMAND; }
	| PORT { $$ = AST_PORT; }
	| TO { $$ = AST_TO; }
	| AT { $$ = AST_AT; }
	| COUNTRY { $$ = AST_IN_COUNTRY; }
	| ASN { $$ = AST_IN_ASN; }
	| RULE { $$ = AST_BY_RULE; }
	;

expect_many:
	  GROUP { $$ = AST_GROUP; }
	| RESOLVES { $$ = AST_RESOLVES; }
	| ALIAS { $$ = AST_ALIAS; }
	;

%%

static struct ast_statement *statement(struct parser *p, enum ast_statement_kind kind, const struct ast_place *at,
				       const struct ast_place *last, const struct ast_place *end)
{
	struct ast_statement *s = ast_statement_append(p->tree, kind, at, last);

	s->last = p->line_last;
	s->end = end->offset;
	return s;
}

static struct ast_clause *clause(struct parser *p, enum ast_clause_kind kind, const struct ast_place *at,
				 struct ast_values values)
{
	struct ast_clause *c = ast_clause_new(p->tree, kind, at);

	c->values = values;
	return c;
}

static struct ast_values one(struct ast_value *v)
{
	return (struct ast_values){.first = v, .last = v, .count = 1};
}

/* Only "memory exhausted" comes here: everything else is reported below. */
static void policy_yyerror(const struct ast_place *at, void *scanner, struct parser *parser, const char *message)
{
	(void)scanner;
	diag_error(parser->diagnostics, parser->tree, "syntax", at, "%s", message);
}

/* Longest list of expected words that still helps. */
#define EXPECTED_MAX 8

/* The text of the token at a place, as the file has it. */
static const char *shown(const struct parser *p, const struct ast_place *at, yysymbol_kind_t token, char buf[DIAG_QUOTE_MAX])
{
	if (token == YYSYMBOL_EOL)
		return "the end of the line";
	const char *source = p->source == NULL ? p->tree->text : p->source->text;
	size_t len = p->source == NULL ? p->tree->len : p->source->len;

	if (token == YYSYMBOL_YYEOF || at->offset + at->length > len)
		return "the end of the file";
	char text[DIAG_QUOTE_MAX];

	snprintf(buf, DIAG_QUOTE_MAX, "'%.180s'", diag_quote(source + at->offset, at->length, text));
	return buf;
}

static const char *near_expected(const char *word, const yysymbol_kind_t *expected, int n)
{
	for (int i = 0; i < n; i++)
		if (words_similar(word, yysymbol_name(expected[i])))
			return yysymbol_name(expected[i]);
	return NULL;
}

static void list_expected(char *buf, size_t size, const yysymbol_kind_t *expected, int n)
{
	size_t used = 0;

	buf[0] = '\0';
	for (int i = 0; i < n && used < size; i++)
		used += (size_t)snprintf(buf + used, size - used, "%s%s",
					 i == 0 ? "; expected " : i == n - 1 ? " or " : ", ", yysymbol_name(expected[i]));
}

static int yyreport_syntax_error(const yypcontext_t *context, void *scanner, struct parser *parser)
{
	yysymbol_kind_t expected[64], token = yypcontext_token(context);
	const struct ast_place *at = yypcontext_location(context);
	int n = yypcontext_expected_tokens(context, expected, 64);
	char found[DIAG_QUOTE_MAX], rest[256] = "";
	char word[40] = "";

	(void)scanner;
	if (at->length < sizeof word && at->offset + at->length <= parser->tree->len)
		memcpy(word, parser->tree->text + at->offset, at->length);
	const char *near = token == YYSYMBOL_WORD ? near_expected(word, expected, n) : NULL;
	bool reserved = words_token(word, strlen(word)) != 0;
	bool takes_value = false, takes_brace = false;

	for (int i = 0; i < n; i++) {
		takes_value |= expected[i] == YYSYMBOL_STRING;
		takes_brace |= strcmp(yysymbol_name(expected[i]), "'}'") == 0;
	}
	if (token == YYSYMBOL_EOL && takes_brace) {
		diag_error(parser->diagnostics, parser->tree, "syntax", at, "a '}' is missing before this");
		return 0;
	}
	if (near != NULL)
		snprintf(rest, sizeof rest, "; did you mean '%s'?", near);
	else if (reserved && takes_value && token != YYSYMBOL_EOL)
		snprintf(rest, sizeof rest, "; a value is missing before this word (a name spelt like it is written in quotes)");
	else if (n > 0 && n <= EXPECTED_MAX)
		list_expected(rest, sizeof rest, expected, n);
	diag_error(parser->diagnostics, parser->tree, "syntax", at, "%s does not fit here%s", shown(parser, at, token, found),
		   rest);
	return 0;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static struct ast_source *fetch(struct parser *p, const struct ast_value *path)
{
	const struct ast_source *from = p->source;
	char *bytes = NULL, *name = NULL;
	struct err why = {{0}};
	size_t len = 0;

	if (p->provider == NULL)
		err_set(&why, "this policy is read without the files it names: only gatewayctl reads them");
	else if (p->tree->nsources >= PARSE_SOURCES_MAX)
		err_set(&why, "a policy reads at most %d other files", PARSE_SOURCES_MAX);
	else if (p->provider->read(p->provider->arg, from == NULL ? p->tree->file : from->name, path->text, &bytes, &len,
				   &name, &why) == 0) {
		if (len <= PARSE_SOURCE_BYTES_MAX - p->tree->source_bytes)
			return ast_source_new(p->tree, from, name, bytes, len);
		err_set(&why, "the files of a policy have at most %zu MB together", PARSE_SOURCE_BYTES_MAX >> 20);
		free(bytes);
		free(name);
	}
	diag_error(p->diagnostics, p->tree, "file", &path->at, "%s", why.text);
	p->tree->damaged = true;
	return NULL;
}

/* One entry: what is left of a line without its remark and the blanks around. */
static void read_entry(struct parser *p, struct ast_list *list, size_t start, size_t end, size_t *room)
{
	const char *text = list->source->text;
	const char *remark = end > start ? memchr(text + start, '#', end - start) : NULL;
	struct ast_place at = {.source = list->source, .offset = start, .length = 1};

	/* In a regular expression, '#' may stand for itself: a remark there begins its line. */
	if (remark != NULL && (remark == text + start || remark[-1] == ' ' || remark[-1] == '\t'))
		end = (size_t)(remark - text);
	while (end > start && (text[end - 1] == ' ' || text[end - 1] == '\t' || text[end - 1] == '\r'))
		end--;
	while (start < end && (text[start] == ' ' || text[start] == '\t'))
		start++;
	if (start == end)
		return;
	at.offset = start;
	if (end - start > AST_ENTRY_MAX) {
		diag_error(p->diagnostics, p->tree, "bad-value", &at, "an entry of a list has at most %d bytes",
			   AST_ENTRY_MAX);
		list->faulty = true;
		return;
	}
	for (size_t i = start; i < end; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c < 0x20 || c == 0x7f) {
			at.offset = i;
			diag_error(p->diagnostics, p->tree, "control-byte", &at, "this line holds the control byte \\x%02x", c);
			list->faulty = true;
			return;
		}
	}
	if (list->count == *room) {
		*room = *room == 0 ? 64 : *room * 2;
		list->entries = reallocarray(list->entries, *room, sizeof list->entries[0]);
		if (list->entries == NULL)
			abort();
	}
	list->entries[list->count++] = (struct ast_entry){.offset = (uint32_t)start, .len = (uint32_t)(end - start)};
}

static struct ast_list *read_list(struct parser *p, const struct ast_value *path)
{
	struct ast_list *list = ast_alloc(p->tree, sizeof *list);
	const struct ast_source *s = fetch(p, path);
	size_t room = 0;

	list->path = path->text;
	list->source = s;
	list->faulty = s == NULL;
	for (size_t at = 0; s != NULL && at < s->len;) {
		const char *line_end = memchr(s->text + at, '\n', s->len - at);
		size_t end = line_end == NULL ? s->len : (size_t)(line_end - s->text);

		read_entry(p, list, at, end, &room);
		at = end + 1;
	}
	return list;
}

static void parse_text(struct parser *p, const char *text, size_t len)
{
	void *scanner = NULL;

	if (policy_yylex_init_extra(p, &scanner) != 0)
		abort();
	policy_yy_scan_bytes(text, (int)len, scanner);
	if (policy_yyparse(scanner, p) != 0)
		p->tree->damaged = true;
	policy_yylex_destroy(scanner);
}

static struct parser fresh(struct policy_tree *t, struct policy_diagnostics *d, const struct policy_provider *provider,
			   const struct ast_source *source)
{
	return (struct parser){.tree = t,
			       .diagnostics = d,
			       .provider = provider,
			       .source = source,
			       .next = {.source = source, .line = 1, .column = 1},
			       .line_empty = true};
}

/* Statements of the file stand where it is included.  The depth is bounded, and so is the stack. */
static void include(struct parser *p, const struct ast_value *path)
{
	const struct ast_source *s = fetch(p, path);

	if (s == NULL)
		return;
	for (const struct ast_source *outer = p->source; outer != NULL; outer = outer->from) {
		if (strcmp(outer->name, s->name) == 0) {
			diag_error(p->diagnostics, p->tree, "include-loop", &path->at, "this file includes itself");
			p->tree->damaged = true;
			return;
		}
	}
	if (strcmp(p->tree->file, s->name) == 0 || s->depth > PARSE_DEPTH_MAX || s->len > PARSE_TEXT_MAX) {
		diag_error(p->diagnostics, p->tree, s->len > PARSE_TEXT_MAX ? "too-long" : "include-loop", &path->at,
			   s->len > PARSE_TEXT_MAX       ? "this file is too long for a policy"
			   : s->depth > PARSE_DEPTH_MAX ? "files include files too deeply"
							 : "this file includes itself");
		p->tree->damaged = true;
		return;
	}
	struct parser inner = fresh(p->tree, p->diagnostics, p->provider, s);

	parse_text(&inner, s->text, s->len);
}

struct policy_tree *policy_parse_with(const char *file_name, const char *text, size_t len,
				      const struct policy_provider *provider, struct policy_diagnostics *d)
{
	bool too_long = len > PARSE_TEXT_MAX;
	struct policy_tree *t = ast_tree_new(file_name, text, too_long ? 0 : len);
	struct parser p = fresh(t, d, provider, NULL);

	if (too_long) {
		diag_error(d, t, "too-long", NULL, "the policy has %zu bytes; at most %u are read", len, PARSE_TEXT_MAX);
		t->damaged = true;
		return t;
	}
	parse_text(&p, t->text, len);
	ast_index(t);
	return t;
}

struct policy_tree *policy_parse(const char *file_name, const char *text, size_t len, struct policy_diagnostics *d)
{
	return policy_parse_with(file_name, text, len, NULL, d);
}
