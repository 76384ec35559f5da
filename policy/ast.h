/* The parse tree of a policy: what the text says, with places, and no meaning yet.  The grammar's actions build it and
 * do nothing else; check.c, compile.c, print.c and expect.c read it.  Every node lives in the tree's arena and dies
 * with it, so no node owns anything. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

/* A file that the policy includes, or a list that a set is read from. */
struct ast_source {
	struct ast_source *next;
	const struct ast_source *from; /* that includes it; NULL: the policy's own text */
	unsigned depth;
	char *name, *text; /* owned by the tree */
	size_t len;
};

struct ast_place {
	const struct ast_source *source; /* NULL: the policy's own text */
	size_t offset;			 /* into the text */
	unsigned line, column; /* from 1; columns are bytes; 0 in a list, where they are counted when asked for */
	unsigned length;       /* bytes, at least 1 */
};

/* The entries of a list, in the order of its lines. */
struct ast_list {
	const struct ast_source *source;
	const char *path; /* as the policy says it */
	struct ast_entry {
		uint32_t offset, len;
	} * entries; /* owned by the tree */
	size_t count;
	bool faulty; /* not all that the file holds is here, and an error says so */
};

/* No entry of a list is longer. */
#define AST_ENTRY_MAX 4096

/* A word, a quoted string or an @reference. */
struct ast_value {
	struct ast_value *next;
	const char *text; /* NUL-terminated; never holds a NUL byte itself */
	size_t len;
	bool quoted;
	bool set; /* @text */
	struct ast_place at;
};

struct ast_values {
	struct ast_value *first, *last;
	size_t count;
};

/* What may stand in a rule or an expectation.  The first group are conditions and may be negated. */
enum ast_clause_kind {
	AST_CLIENT,
	AST_LISTENER,
	AST_USER,
	AST_GROUP,
	AST_CLAIMED_USER,
	AST_METHOD,
	AST_STRENGTH,
	AST_COMMAND,
	AST_PORT,
	AST_DURING,
	AST_BY,
	AST_TO_CIDR,
	AST_TO_DOMAIN,
	AST_TO_REGEX,
	AST_TO_COUNTRY,
	AST_TO_ASN,
	AST_CONDITIONS, /* count of the kinds above */
	AST_FROM = AST_CONDITIONS,
	AST_UNTIL,
	AST_SOURCE,
	AST_INTERNAL,
	AST_LOG,
	AST_OWNER,
	AST_TICKET,
	AST_COMMENT,
	/* expectations only */
	AST_TO,
	AST_RESOLVES,
	AST_ALIAS,
	AST_AT,
	AST_IN_COUNTRY,
	AST_IN_ASN,
	AST_BY_RULE,
	AST_CLAUSE_KINDS
};

struct ast_clause {
	struct ast_clause *next;
	enum ast_clause_kind kind;
	bool negated;
	struct ast_values values;
	struct ast_place at; /* of its first word */
};

struct ast_clauses {
	struct ast_clause *first, *last;
};

enum ast_set_kind {
	AST_SET_CIDR,
	AST_SET_DOMAIN,
	AST_SET_REGEX,
	AST_SET_PORT,
	AST_SET_USER,
	AST_SET_GROUP,
	AST_SET_COUNTRY,
	AST_SET_ASN
};

enum ast_statement_kind {
	AST_TZ,
	AST_ANSWERS,
	AST_NAT64,
	AST_GRACE,
	AST_DEFAULT,
	AST_SET,
	AST_WINDOW,
	AST_RULE,
	AST_EXPECT,
	AST_INCLUDE,
};

struct ast_statement {
	struct ast_statement *next;
	enum ast_statement_kind kind;
	struct ast_place at;
	unsigned order;		    /* among all statements, those of included files too */
	unsigned end_line;	    /* line of its last token */
	size_t last, end;	    /* offsets: behind its last token; of its line's end, the text's at most */
	size_t open, close;	    /* offsets of a set's or window's braces, where it has them */
	struct ast_place disabled;  /* rule: of that word; length 0: it is not disabled */
	bool monitor;		    /* rule */
	bool allow;		    /* rule, default, expect */
	enum ast_set_kind set_kind; /* set */
	struct ast_value *name;	    /* set, window, rule */
	struct ast_value *zone;	    /* window, tz; NULL: the policy's */
	struct ast_values values;   /* set, window, nat64, answers, grace, include */
	struct ast_list *list;	    /* set from a file; NULL */
	struct ast_values except;   /* window */
	struct ast_clauses clauses; /* rule, expect */
};

struct ast_remark {
	struct ast_remark *next;
	const char *text; /* from '#', without the line end */
	unsigned line;
	bool alone; /* nothing else on its line */
};

struct ast_chunk;

struct policy_tree {
	struct ast_chunk *chunks;
	const char *file;
	const char *text; /* a copy, for excerpts */
	size_t len;
	struct ast_statement *first, *last;
	struct ast_remark *remarks, *last_remark; /* of the policy's own text */
	struct ast_source *sources;
	size_t nsources, source_bytes;
	unsigned nstatements;
	const struct ast_statement **index; /* those with a name, by kind and name; made when parsing ends */
	size_t nindex;
	bool damaged; /* statements are missing: do not complain about what they would have defined */
};

struct policy_tree *ast_tree_new(const char *file, const char *text, size_t len);
/* Zeroed memory that lives as long as the tree.  Never NULL: the tree is built in short-lived processes, and one that
 * has no memory left must end rather than decide with half a policy. */
void *ast_alloc(struct policy_tree *t, size_t size);
struct ast_value *ast_value_new(struct policy_tree *t, const char *text, size_t len, const struct ast_place *at);
void ast_values_append(struct ast_values *list, struct ast_value *v);
struct ast_clause *ast_clause_new(struct policy_tree *t, enum ast_clause_kind kind, const struct ast_place *at);
void ast_clauses_append(struct ast_clauses *list, struct ast_clause *c);
struct ast_statement *ast_statement_append(struct policy_tree *t, enum ast_statement_kind kind,
					   const struct ast_place *at, const struct ast_place *end);
/* Takes over name and text, which are malloc'd. */
struct ast_source *ast_source_new(struct policy_tree *t, const struct ast_source *from, char *name, char *text,
				  size_t len);
/* Calls each for every entry, with a value that lives as long as the call. */
void ast_each_entry(const struct ast_list *list, void (*each)(const struct ast_value *v, void *arg), void *arg);

void ast_remark_append(struct policy_tree *t, const char *text, size_t len, unsigned line, bool alone);

/* Makes ast_find() fast; call once, when the tree is complete. */
void ast_index(struct policy_tree *t);
/* The set named by an @reference, or a window or rule by name; NULL if there is none.  The first of that name wins. */
const struct ast_statement *ast_find(const struct policy_tree *t, enum ast_statement_kind kind, const char *name);
/* The clause of that kind, or NULL. */
const struct ast_clause *ast_clause_find(const struct ast_statement *s, enum ast_clause_kind kind);
/* The zone of the policy: its last tz statement, or "UTC". */
const char *ast_zone(const struct policy_tree *t);

/* True for a rule that takes part in decisions: one that is not disabled. */
static inline bool ast_is_rule(const struct ast_statement *s)
{
	return s->kind == AST_RULE && s->disabled.length == 0;
}

/* The words that introduce clauses and sets, as printed ("to domain", "claimed-user"). */
const char *ast_clause_word(enum ast_clause_kind kind);
const char *ast_set_word(enum ast_set_kind kind);
/* Calls each for every value of the list, with the values of a referenced set of that kind in place of the reference;
 * a set that is met twice counts once.  A value lives as long as the call. */
void ast_each_value(const struct policy_tree *t, const struct ast_values *list, int set_kind,
		    void (*each)(const struct ast_value *v, void *arg), void *arg);
/* The kind of set that a condition takes values from; -1 if it takes none. */
int ast_clause_set_kind(enum ast_clause_kind kind);
