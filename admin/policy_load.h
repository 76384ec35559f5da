/* A policy on this side of the control socket: read from files with the caller's rights, or from the store of a gateway, and made
 * into whatever the verbs of `gatewayctl policy` need. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "policy/bundle.h"
#include "policy/policy.h"

struct loaded {
	struct policy_tree *tree;
	struct policy_diagnostics diagnostics;
	uint8_t *data, *geo_data, *asn_data;
	size_t len;
	struct policy_image *image; /* NULL: there are errors */
	struct policy_geo *geo, *asn;
	/* Of a revision of the store: where its gateway listens.  malloc'd. */
	struct addr *local;
	uint16_t *own_ports;
	size_t nlocal, nown_ports;
};

/* Parses and checks; if that finds no error, makes and opens the image.  geoip and asn may be NULL.  -1, with a line on standard
 * error, only if there is no text to speak about.  "-" is standard input. */
int load_file(const char *path, const char *geoip, const char *asn, struct loaded *l);
/* The same for a revision of the store; 0 is the one in force.  Otherwise the exit code. */
int load_revision(uint32_t id, struct loaded *l);
/* The same from a store that is read here; path is that of its database. */
int load_stored(const char *path, uint32_t id, struct loaded *l);
/* The same for a bundle that is at hand; 0 or -1 as load_file(). */
int load_bundle(const struct bundle *b, struct loaded *l);
/* The whole of a regular file that holds a policy, NUL-terminated and malloc'd. */
int load_text(const char *path, char **text, size_t *len, struct err *why);
/* Adds tables made from databases; either may be NULL.  0 or -1. */
int load_tables(const char *geoip, const char *asn, struct loaded *l);
void loaded_clear(struct loaded *l);

/* A policy and the files that it names, as they are now. */
struct gathered {
	struct bundle_file files[BUNDLE_FILES_MAX]; /* texts and names are its own */
	size_t count;
	struct policy_tree *tree; /* checked */
	struct policy_diagnostics diagnostics;
};

/* Like load_file().  Each file is read once, however often it is named. */
struct gathered *gather(const char *path);
void gathered_free(struct gathered **g);

/* A file of values, one a line, read and checked as the list of a set of that kind, which is the first statement of the tree. */
struct policy_tree *list_read(const char *path, const char *kind, struct policy_diagnostics *d);

/* A bundle of the store, mapped. */
struct fetched {
	struct bundle bundle;
	json_t *reply; /* "revision" describes it, "checks" is what was said when it was applied */
	const uint8_t *data;
	size_t len;
};

/* 0, or an exit code when it has said why. */
int fetch_revision(uint32_t id, struct fetched *out);
void fetched_clear(struct fetched *f);

void print_diagnostics(const struct policy_diagnostics *d, FILE *out);
json_t *diagnostics_json(const struct policy_diagnostics *d);
/* How much policy_diff() has told. */
void print_differences(const struct policy_differences *count);
/* policy_find_groups() asks it.  arg: a file in the format of group(5), or NULL for the groups of this machine. */
bool group_is_known(const char *group, void *arg);
/* True, with *id, for a text of digits only. */
bool revision_number(const char *text, uint32_t *id);
