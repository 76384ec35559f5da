/* What lexer and grammar share. */
#pragma once

#include "policy/ast.h"

/* A policy of 100,000 rules is about 10 MB. */
#define PARSE_TEXT_MAX (64u << 20)
/* Of everything that a policy includes or reads lists from. */
#define PARSE_SOURCES_MAX 1000
#define PARSE_SOURCE_BYTES_MAX ((size_t)256 << 20)
#define PARSE_DEPTH_MAX 16

struct parser {
	struct policy_tree *tree;
	struct policy_diagnostics *diagnostics;
	const struct policy_provider *provider; /* NULL: there are no other files */
	const struct ast_source *source;	/* being read; NULL: the policy's own text */
	struct ast_place next;			/* where the next token starts */
	struct ast_place filler;		/* of the token being read */
	unsigned braces;
	unsigned rule_words; /* of a rule's beginning, so far: 1 behind "rule", 2 behind its name */
	size_t token_end;    /* behind the last token */
	size_t line_last;    /* the same, when the line ended */
	bool line_empty; /* no token yet on this line */
	bool ended;	 /* the end of the last line has been given */
};
