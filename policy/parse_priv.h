/* What lexer and grammar share. */
#pragma once

#include "policy/ast.h"

/* A policy of 100,000 rules is about 10 MB. */
#define PARSE_TEXT_MAX (64u << 20)

struct parser {
	struct policy_tree *tree;
	struct policy_diagnostics *diagnostics;
	struct ast_place next;	 /* where the next token starts */
	struct ast_place filler; /* of the token being read */
	unsigned braces;
	bool line_empty; /* no token yet on this line */
	bool ended;	 /* the end of the last line has been given */
};
