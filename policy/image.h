/* The image: one block of bytes, host order, offsets only.
 *
 *   header | section 0 | section 1 | ...
 *
 * A section is an array of one record type; a record points to others by (first, count) of a section that its kind
 * implies, or to text by (offset, length) in SEC_TEXT.  image_verify() checks every such pair and every enum once, so
 * that the accessors here need no checks of their own.  Records are naturally aligned; sections start at multiples
 * of 8.
 *
 * Equal conditions are one predicate, however many rules use them: the matcher remembers a predicate's value for the
 * rest of the request. */
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "policy/policy.h"

#define IMAGE_MAGIC "GWPOLICY"
#define IMAGE_VERSION 4
#define IMAGE_SUM_BYTES 32
#define IMAGE_GRACE_MAX_S (12 * 3600)

/* Limits of one match of one pattern against one name (at most 253 bytes): ordinary patterns need a few hundred steps.
 */
#define IMAGE_REGEX_MATCH_LIMIT 50000
#define IMAGE_REGEX_DEPTH_LIMIT 5000
#define IMAGE_REGEX_HEAP_KIB 1024
#define IMAGE_REGEX_PATTERN_MAX 4096

enum image_section {
	SEC_TEXT,	/* bytes; each text ends with NUL */
	SEC_RULE,	/* struct img_rule, in the order of decision */
	SEC_COND,	/* struct img_cond */
	SEC_PRED,	/* struct img_pred */
	SEC_RANGE4,	/* struct img_range4: sorted and disjoint within a predicate */
	SEC_RANGE6,	/* struct img_range6: the same */
	SEC_WORD,	/* struct img_word: a list or a hash table of a predicate */
	SEC_PATTERN,	/* struct img_text: each distinct regular expression once */
	SEC_INDEX,	/* uint32_t: patterns or windows of a predicate */
	SEC_LITERAL,	/* struct img_literal: a hash table of a predicate */
	SEC_DEMAND,	/* struct img_demand: of a predicate, by their literals */
	SEC_PORT,	/* struct img_port: sorted and disjoint within a predicate */
	SEC_COUNTRY,	/* uint16_t: sorted within a predicate; 0 is "unknown" */
	SEC_ASN,	/* uint32_t: sorted within a predicate; 0 is "unknown" */
	SEC_WINDOW,	/* struct img_window */
	SEC_HOURS,	/* struct img_hours */
	SEC_DAY,	/* int32_t: exception days of a window, sorted */
	SEC_ZONE,	/* struct img_zone; number 0 is the policy's */
	SEC_TRANSITION, /* struct img_transition: sorted within a zone */
	SEC_INSTANT,	/* int64_t */
	SEC_NAT64,	/* struct prefix */
	SEC_GROUP,	/* struct img_text: every group the policy mentions */
	SEC_NODE,	/* struct img_node: the index; see index.h */
	SEC_CANDIDATE,	/* uint32_t: rules of a node, ascending */
	SEC_TABLE,	/* struct img_table: of a node */
	SEC_BRANCH,	/* struct img_branch: of a node */
	SEC_BUCKET,	/* struct img_bucket: a hash table of a table */
	SEC_STEP4,	/* struct img_step4: ascending within a table */
	SEC_STEP6,	/* struct img_step6: the same */
	SEC_CHAIN,	/* struct img_chain */
	SEC_FILTER,	/* uint64_t: of a predicate or a table; see filter.h */
	SEC_GUIDE,	/* uint32_t: the same; see guide.h */
	SECTION_COUNT
};

struct img_span {
	uint32_t first, count;
};

struct img_text {
	uint32_t offset, len;
};

/* By name, with the addresses unknown, and by address. */
enum index_phase { INDEX_BY_NAME, INDEX_BY_ADDRESS, INDEX_PHASES };

struct img_header {
	char magic[8];
	uint32_t version;
	uint8_t answers_all;
	uint8_t slots; /* of what is known of names */
	uint16_t grace_s;
	uint64_t len;
	uint64_t seed;		      /* of the hashes */
	uint32_t roots[INDEX_PHASES]; /* references, see index.h */
	uint8_t sum[IMAGE_SUM_BYTES]; /* of the whole block, these bytes being zero */
	struct {
		uint32_t offset, count; /* bytes from the start of the block; records */
	} sections[SECTION_COUNT];
};

#define RULE_ALLOW 1u
#define RULE_MONITOR 2u
#define RULE_INTERNAL 4u

/* One line of the processor's caches. */
struct img_rule {
	struct img_span conds;
	uint8_t flags, log;
	struct addr source; /* ADDR_NONE if the rule names none */
	uint8_t pad[5];
	struct img_text name, owner, ticket, comment;
};

enum pred_kind {
	PRED_COMMAND,	   /* a.first: bits 1 << enum policy_command */
	PRED_METHOD,	   /* a.first: bits 1 << enum policy_method */
	PRED_BY_NAME,	   /* a.first: bit 0 by address, bit 1 by name */
	PRED_PORT,	   /* a: SEC_PORT */
	PRED_LISTENER,	   /* a: SEC_WORD */
	PRED_USER,	   /* a: SEC_WORD */
	PRED_CLAIMED_USER, /* a: SEC_WORD */
	PRED_GROUP,	   /* a: SEC_WORD */
	PRED_CLIENT,	   /* a: SEC_RANGE4, b: SEC_RANGE6; aid: SEC_GUIDE of many in a */
	PRED_DOMAIN,	   /* a: SEC_WORD; aid: SEC_FILTER, of many */
	PRED_REGEX,   /* a: SEC_INDEX of SEC_PATTERN; b: SEC_LITERAL; c: SEC_INDEX of those without; aid: SEC_FILTER
			 of the literals */
	PRED_CIDR,    /* a, b, aid: the same; c, d: those of its ranges that open the address guard */
	PRED_COUNTRY, /* a: SEC_COUNTRY */
	PRED_ASN,     /* a: SEC_ASN */
	PRED_DURING,  /* a: SEC_INDEX of SEC_WINDOW */
	PRED_FROM,    /* a: one of SEC_INSTANT */
	PRED_UNTIL,   /* a: one of SEC_INSTANT */
	PRED_KINDS
};

struct img_pred {
	uint32_t kind;
	uint32_t slot; /* from 1: its values for names are remembered (see struct image_known); 0: they are not */
	struct img_span a, b, c, d, aid;
	/* SEC_INDEX of SEC_PRED: large sets of the same kind that count as if their values stood here.  They have none
	 * of their own. */
	struct img_span sets;
};

struct img_range4 {
	uint32_t lo, hi;
};

struct img_range6 {
	uint8_t lo[16], hi[16];
};

struct img_port {
	uint16_t lo, hi;
};

#define COND_NEGATED 1u

/* A condition whose values are few and short holds a copy of them, so that most rules are verified without a look at
 * their predicates. */
enum cond_form {
	COND_PRED,   /* holds none */
	COND_BITS,   /* of the predicate's a.first */
	COND_WORD,   /* count bytes: the only word of the predicate */
	COND_PORTS,  /* count ranges */
	COND_RANGES, /* count ranges; none of IPv6 */
	COND_KNOWN   /* the slot of its predicate, which has no sets */
};

#define COND_WORD_MAX 23
#define COND_PORTS_MAX 6
#define COND_RANGES_MAX 3

struct img_cond {
	uint32_t pred;
	uint8_t flags, kind, form, count; /* kind: that of the predicate */
	union {
		uint32_t bits;
		uint32_t slot;
		struct {
			uint8_t domain; /* VALUE_DOMAIN_* */
			char bytes[COND_WORD_MAX];
		} word;
		struct img_port ports[COND_PORTS_MAX];
		struct img_range4 ranges[COND_RANGES_MAX];
	} held;
};

/* Up to WORDS_LISTED words are listed; more are a hash table with free places in it (see hash.h). */
#define WORDS_LISTED 8
#define WORD_FREE UINT32_MAX

struct img_word {
	uint32_t tag;
	uint32_t text; /* offset << 2 | VALUE_DOMAIN_* flags; WORD_FREE */
};

#define WORD_TEXT_MAX (UINT32_MAX >> 2)

/* Four bytes of a name that lead to patterns; count 0: free. */
struct img_literal {
	uint32_t literal;
	struct img_span demands; /* SEC_DEMAND */
};

/* A pattern, and a text that a name must hold to match it (see literal.h). */
struct img_demand {
	uint32_t pattern;
	uint32_t text;	     /* offset in SEC_TEXT */
	uint8_t len;	     /* of the text */
	uint8_t at, more_at; /* where in the text its literal is, and more */
	uint8_t pad;
	uint32_t more; /* four bytes of the text, to be compared without a look at it */
};

struct img_window {
	struct img_text name;
	uint32_t zone;
	struct img_span hours, except;
};

struct img_hours {
	uint16_t days;	     /* bit 0 is Monday */
	uint16_t start, end; /* minutes; end <= start runs past midnight */
	uint16_t pad;
};

struct img_zone {
	struct img_text name;
	int32_t before; /* offset from UTC in seconds before the first transition */
	uint32_t pad;
	int64_t until; /* what is known ends here */
	struct img_span transitions;
};

struct img_transition {
	int64_t at;
	int32_t offset; /* seconds east of UTC from then on */
	uint32_t pad;
};

/* ---- the index: see index.h ---- */

/* A reference is a node, a rule (REF_RULE set) or nothing. */
#define REF_RULE 0x80000000u
#define REF_NONE 0x7fffffffu

struct img_node {
	struct img_span rules, tables, branches;
};

enum index_field {
	FIELD_NAME,
	FIELD_USER,
	FIELD_GROUP,
	FIELD_CLAIMED_USER,
	FIELD_LITERAL,
	FIELD_LISTENER, /* the fields up to here are hashed */
	FIELD_PORT,
	FIELD_CLIENT4,
	FIELD_TO4,
	FIELD_CLIENT6, /* the fields from here on have steps of 16 bytes */
	FIELD_TO6,
	FIELD_COUNT
};

struct img_table {
	uint32_t field;
	struct img_span places; /* SEC_BUCKET, SEC_STEP4 or SEC_STEP6 */
	struct img_span aid;	/* SEC_FILTER: of many names or literals; SEC_GUIDE: of many steps */
	struct img_span chains; /* SEC_CHAIN: those of the steps */
};

/* One line of the processor's caches: what is not in it is known from its first eight bytes.  Its slots are used from
 * the first on. */
#define BUCKET_SLOTS 7
#define BUCKET_OVERFLOWS 7

struct img_bucket {
	/* Of the slots, from their hashes; 0: free.  BUCKET_OVERFLOWS: 1 if what found no place went on to the next
	 * bucket. */
	uint8_t marks[BUCKET_SLOTS + 1];
	struct img_slot {
		uint32_t tag, ref;
	} slots[BUCKET_SLOTS];
};

/* From here up to the next step, these blocks hold. */
#define CHAIN_END UINT32_MAX

struct img_step4 {
	uint32_t from, chain;
};

struct img_step6 {
	uint8_t from[16];
	uint32_t chain;
};

/* A block, and the one around it, which comes before it. */
struct img_chain {
	uint32_t ref, outer;
};

#define BRANCH_ALWAYS UINT32_MAX

struct img_branch {
	uint32_t traits; /* what a request may be, see index.h */
	uint32_t pred;	 /* and this condition must not be false; BRANCH_ALWAYS */
	uint32_t flags;	 /* COND_NEGATED, BRANCH_DENY */
	uint32_t ref;
};

#define BRANCH_DENY 2u

/* Places with candidates that a request can have; with more, every rule is verified. */
#define INDEX_CURSORS 4096
/* The same for places of the index that a request leads to. */
#define INDEX_VISITS 65536

/* A predicate's value and the request, or address of a request, it was found for. */
struct image_memo {
	uint32_t stamp;
	uint8_t value;
	uint8_t cannot; /* why it cannot be evaluated */
};

/* What is known of a name: names come again and again, and what a set of names or patterns says of one, and where the
 * index leads from it, is always the same. */
#define KNOWN_SLOTS 16
#define KNOWN_NAMES 4096
#define KNOWN_NAME_MAX 77
#define KNOWN_REFS 3
#define KNOWN_NOT 255

struct image_known {
	uint64_t hash;
	uint8_t len; /* 0: nothing is known here */
	char text[KNOWN_NAME_MAX];
	uint8_t values[KNOWN_SLOTS];		 /* of the predicates with a slot; KNOWN_NOT, or value and reason */
	uint8_t nrefs[INDEX_PHASES];		 /* KNOWN_NOT, or how many; more than KNOWN_REFS are not kept */
	uint32_t refs[INDEX_PHASES][KNOWN_REFS]; /* found in the root's table of names */
};

struct policy_image {
	const uint8_t *data;
	const struct img_header *header;
	const void *sections[SECTION_COUNT]; /* where each begins */
	/* Per process, changed while deciding: */
	pcre2_code **patterns; /* compiled when first needed; NULL before */
	bool *broken;	       /* the pattern cannot be compiled here */
	pcre2_match_data *match_data;
	pcre2_match_context *match_context;
	struct image_memo *memo;		     /* one a predicate and side */
	struct image_memo *pattern_memo;	     /* one a pattern; its stamps are of names */
	struct image_known *known;		     /* KNOWN_NAMES, by hash; NULL if there is little to be known */
	const struct img_table *names[INDEX_PHASES]; /* the roots' tables of names; NULL: none */
	uint32_t stamp;
	struct window_memo {
		int64_t now;
		uint8_t state;
		bool known;
	} * windows;
	struct index_cursor {
		uint32_t rule;	  /* next */
		uint32_t at, end; /* what follows it in SEC_CANDIDATE */
	} * cursors;		  /* INDEX_CURSORS */
};

size_t image_record_size(enum image_section s);

static inline const void *image_section(const struct policy_image *i, enum image_section s)
{
	return i->sections[s];
}

static inline uint32_t image_count(const struct policy_image *i, enum image_section s)
{
	return i->header->sections[s].count;
}

static inline const char *image_text(const struct policy_image *i, struct img_text t)
{
	return (const char *)image_section(i, SEC_TEXT) + t.offset;
}

#define IMAGE_AT(image, section, type, index) (&((const type *)image_section(image, section))[index])

/* Fills in len and sum of a block that is otherwise complete. */
void image_seal(uint8_t *data, size_t len);

/* Every pattern is compiled by this: anchored at both ends, any case, bytes, no JIT.  NULL and *why if it is none. */
pcre2_code *image_regex_compile(const char *text, size_t len, size_t *offset, struct err *why);
