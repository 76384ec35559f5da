/* An edit of the policy in force: its texts come from the store, are changed in place, and go back as a new revision, unless somebody
 * else was faster. */
#pragma once

#include "admin/policy_load.h"
#include "admin/revision.h"
#include "policy/ast.h"
#include "policy/edit.h"

struct change {
	struct revision_options options;
	struct fetched base;
	struct policy_tree *tree;
	struct policy_edit edit; /* of tree */
};

/* Fetches and reads the policy in force.  ADMIN_FINE, or an exit code when it has said why.  options are the caller's to fill. */
int change_begin(struct change *c);
/* Checks what the edit makes, and puts it into force; with --dry-run the lines that change are shown.  Returns the exit code. */
int change_end(struct change *c);
void change_clear(struct change *c);

/* The two halves of change_end(): what the edit makes (the caller's; never NULL), and putting it into force. */
struct gathered *change_make(struct change *c, bool show);
int change_put(struct change *c, struct gathered *g);

/* A statement of that kind; NULL when it has said that there is none, and which name is near. */
const struct ast_statement *change_find(const struct change *c, enum ast_statement_kind kind, const char *name);

/* A statement as a policy writes it, out of words of a command line: one word is the whole text; of more, each is a word or a value,
 * and gets quotes if it needs them.  malloc'd. */
char *change_text(const char *keyword, int n, char *const *words);
/* Reads that text: its name (malloc'd), or NULL when it has said what is wrong. */
char *change_name(const char *text, enum ast_statement_kind kind);
