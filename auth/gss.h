/* The GSSAPI child: it alone has the keytab, and holds the contexts that are not established yet.  Nothing in it waits: a token
 * comes, a token goes, and between two of them a context is an entry in a table.
 *
 * Accounts and groups of the user that a principal maps to are looked up by a conversation child, since that may block. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/auth.h"
#include "common/err.h"

struct gss_server;

struct gss_server_options {
	size_t contexts_max;
	bool fold_case; /* user names are lower-cased (ASCII) */
};

/* What libkrb5 takes for krb5.conf from now on: a copy in memory.  It looks whether its file has changed each time it is used, and
 * that under another inode, as editors and packages leave it, is none that our sandbox lets us open. */
int gss_use_krb5_conf(const char *path, struct err *why);

/* What the mechanism says of minor; where that is nothing, what GSSAPI says of major.  Printable ASCII, for a reason. */
void gss_describe(uint32_t major, uint32_t minor, char *out, size_t size);

/* Copies the keytab into the memory of this process, with the rights that it has now: call it before they are dropped. */
int gss_server_read_keytab(const char *keytab, const char *krb5_conf, struct err *why);
/* Needs the keytab; touches what the libraries will want to have seen before the sandbox closes. */
struct gss_server *gss_server_new(const struct gss_server_options *options, struct err *why);

/* One step of context `step->id`, which is new if nobody has heard of it; fills *answer whatever happens.  Contexts that are
 * established, or have failed, are gone.  *token (of answer) is a buffer that lives until the next step. */
void gss_server_step(struct gss_server *s, const struct gss_step *step, struct gss_answer *answer);
/* Wipes what the last answer points to; before the next step at the latest. */
void gss_server_clean(struct gss_server *s);
void gss_server_drop(struct gss_server *s, uint64_t id);
void gss_server_drop_all(struct gss_server *s);
