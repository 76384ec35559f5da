/* The groups of a user, the name of a uid, and whether there are groups, at this moment: NSS and, if configured, a groups file. */
#pragma once

#include "auth/auth.h"
#include "common/err.h"

/* Fills answer->groups of answer->user in, without duplicates.  file is auth_child_options.groups_file.  A user whom
 * NSS does not know has the groups of the file alone, or none.  0, or -1 with *why (and no groups) if they cannot be
 * told in full: a data base failed, a name is too long, they are too many.  An incomplete list is never given, because
 * a deny rule would not see what is missing. */
int auth_groups_find(struct auth_answer *answer, const char *file, struct err *why);

/* What NSS calls a uid, into login->name; "" if it does not know, or calls it what is not auth_login_valid(). */
void auth_login_find(struct auth_login *login);

/* Sets the state of each group: known if NSS or the file (NULL: none) has it.  From until_us on (clock_mono_us()) NSS is not asked any more. */
void auth_groups_look(struct auth_asked_groups *asked, const char *file, int64_t until_us);

/* The part that reads a groups file's text; adds to answer->groups. */
int auth_groups_parse(struct auth_answer *answer, const char *text, size_t len, struct err *why);
