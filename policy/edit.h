/* Changes of a policy's text that leave alone what they do not name: remarks, layout and every other statement stay byte for
 * byte, because a change is a few replacements at places that the tree knows, and nothing is ever printed anew.
 *
 * A statement has lines of its own: those that it stands on, and the remarks directly above it.  Empty lines belong to nobody:
 * they part groups, and stay where somebody is left who was parted by them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "policy/ast.h"

/* Replacements in the texts of one tree, in any order; they must not overlap. */
struct policy_edit {
	const struct policy_tree *tree;
	struct edit_piece {
		const struct ast_source *source; /* NULL: the policy's own text */
		size_t offset, removed, order;
		char *text; /* owned; NUL-terminated */
	} * pieces;
	size_t count, room;
};

void edit_init(struct policy_edit *e, const struct policy_tree *t);
void edit_clear(struct policy_edit *e);

/* All of a source is to be another text, which is copied. */
void edit_all(struct policy_edit *e, const struct ast_source *source, const char *text);
/* The new text of a source (NULL: the policy's own), malloc'd and NUL-terminated; NULL if no piece touches it. */
char *edit_text(struct policy_edit *e, const struct ast_source *source, size_t *len);

/* Where a statement goes.  EDIT_LAST of a rule: behind the last one that is decided by. */
enum edit_where { EDIT_LAST, EDIT_FIRST, EDIT_BEFORE, EDIT_AFTER };

/* Reads one statement, written as in a policy and without its line end, of that kind: *name is its name (malloc'd; the
 * caller's).  -1 with *why if it is none, and what is wrong with it in d. */
int edit_read(const char *text, enum ast_statement_kind kind, char **name, struct policy_diagnostics *d, struct err *why);

/* Adds a statement that edit_read() took; anchor is for EDIT_BEFORE and EDIT_AFTER. */
void edit_insert(struct policy_edit *e, const char *text, enum ast_statement_kind kind, enum edit_where where,
		 const struct ast_statement *anchor);
void edit_remove(struct policy_edit *e, const struct ast_statement *s);
/* Nothing, if it is there already.  where is EDIT_BEFORE or EDIT_AFTER. */
void edit_move(struct policy_edit *e, const struct ast_statement *s, enum edit_where where, const struct ast_statement *anchor);
/* The words of a statement; a remark behind them stays. */
void edit_replace(struct policy_edit *e, const struct ast_statement *s, const char *text);
/* False: it is so already. */
bool edit_enable(struct policy_edit *e, const struct ast_statement *rule, bool enabled);
/* moment: a value, as it is written in a policy. */
void edit_until(struct policy_edit *e, const struct ast_statement *rule, const char *moment);
/* The text of a rule, which edit_read() took, with that end: before a remark, if it has one.  malloc'd; NULL if the rule has an end. */
char *edit_with_end(const char *text, const char *moment);

/* Values of a set: those of its braces, or the entries of its list file.  Two are one if they mean the same to the compiler, however
 * they are written: 10.0.0.0/8 is 10.0.0.0-10.255.255.255.  The order is kept if they are sorted by their bytes; otherwise what
 * is new comes last.
 *
 * Values are given as they are meant, without quotes; "@name" is a set. */

/* True if a text can be written as a value of this set and is read as the same again; whether it is one of its kind, checks tell. */
bool edit_set_can_hold(const struct ast_statement *set, const char *value);
/* True if it has this value (not: in a set that it holds). */
bool edit_set_has(const struct ast_statement *set, const char *value);
/* Adds those that are not there already, and returns how many that were. */
size_t edit_set_add(struct policy_edit *e, const struct ast_statement *set, const char *const *values, size_t n);
/* Removes each wherever it stands, however it is written.  -1 with *missing if one is not there, and nothing is changed then. */
int edit_set_remove(struct policy_edit *e, const struct ast_statement *set, const char *const *values, size_t n, const char **missing);
/* What of the set stays when these values are removed, and matches all that one of them does; also in sets that it holds.  True with
 * its text in out, and the set that has it in *in.  n: EDIT_COVERED_MAX at most are looked at. */
#define EDIT_COVERED_MAX 64
bool edit_set_covers(const struct policy_tree *t, const struct ast_statement *set, const char *const *removed, size_t n, size_t which,
		     char out[AST_ENTRY_MAX + 1], const struct ast_statement **in);
/* Adds the values of a list, where "@name" is no set.  replace: what is none of them is removed, sets too. */
size_t edit_set_import(struct policy_edit *e, const struct ast_statement *set, const char *const *values, size_t n, bool replace);
/* Days of a window on which nothing begins. */
void edit_except(struct policy_edit *e, const struct ast_statement *window, const char *date);

/* A value as a policy writes it: in quotes where they are needed.  malloc'd.  NULL if none can be written that means this: it
 * holds a control byte, or a backslash before a quote or at its end. */
char *edit_quote(const char *value);
/* The same for a value that is never a set, whatever it begins with. */
char *edit_literal(const char *value);
