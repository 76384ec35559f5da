/* One PAM conversation, start to end; may block for as long as its modules like. */
#pragma once

#include "auth/auth.h"

/* Fills *answer in, but for its id and groups.  ask->user is what PAM gets (already folded).
 *
 * What PAM may ask in one conversation is what a user name and a password (RFC 1929) can answer:
 * - PAM_PROMPT_ECHO_OFF: the first question gets the password, and so does every later one with the same text (two
 * modules of one stack that both say "Password: ").  A hidden question with another text is refused.
 * - PAM_PROMPT_ECHO_ON: the first gets the user name, with the same rule for later ones.
 * - PAM_TEXT_INFO, PAM_ERROR_MSG: dropped; there is nobody to read them.
 * - anything else, and more than 16 questions: refused.
 * A refused question makes the module fail (PAM_CONV_ERR); if the stack then fails, the verdict is AUTH_FAILED and the
 * reason says what was asked. */
void auth_pam_judge(const struct auth_child_options *options, const struct auth_ask *ask, struct auth_answer *answer);
/* The account alone (pam_acct_mgmt(3)), of a user whom something else than PAM has vouched for. */
void auth_pam_account(const struct auth_child_options *options, const struct auth_ask *ask, struct auth_answer *answer);
