#include "config.h"

#include "auth/pam.h"

#include <security/pam_appl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define QUESTIONS_MAX 16

/* What the modules' questions see of a log-in. */
struct talk {
	const struct auth_ask *ask;
	unsigned questions;
	bool asked_hidden, asked_shown;
	char hidden[PAM_MAX_MSG_SIZE + 1], shown[PAM_MAX_MSG_SIZE + 1]; /* the first question of each kind */
	char refused[192];						/* why a question was refused, or "" */
	uint32_t delay_us;
};

/* ---- the conversation -------------------------------------------------------------------------------------------- */

static bool first_or_same(char first[PAM_MAX_MSG_SIZE + 1], bool *asked, const char *question)
{
	if (*asked)
		return strncmp(first, question, PAM_MAX_MSG_SIZE) == 0;
	*asked = true;
	snprintf(first, PAM_MAX_MSG_SIZE + 1, "%s", question);
	return true;
}

/* Notes why, for the audit.  A module that says the password back in its question is not quoted. */
static void refuse(struct talk *talk, const char *what, const char *question)
{
	if (talk->ask->password[0] != '\0' && strstr(question, talk->ask->password) != NULL)
		question = "...";
	snprintf(talk->refused, sizeof talk->refused,
		 "PAM asked %s that user name and password cannot answer: \"%.80s\"", what, question);
}

/* The answer to one message in *out (NULL: none is due); false if it is refused. */
static bool reply_to(struct talk *talk, const struct pam_message *message, const char **out)
{
	const char *question = message->msg == NULL ? "" : message->msg;

	*out = NULL;
	if (message->msg_style == PAM_TEXT_INFO || message->msg_style == PAM_ERROR_MSG)
		return true;
	if (talk->ask->vouched) {
		refuse(talk, "a question", question);
		return false;
	}
	if (++talk->questions > QUESTIONS_MAX) {
		refuse(talk, "more questions", question);
		return false;
	}
	if (message->msg_style == PAM_PROMPT_ECHO_OFF && first_or_same(talk->hidden, &talk->asked_hidden, question)) {
		*out = talk->ask->password;
		return true;
	}
	if (message->msg_style == PAM_PROMPT_ECHO_ON && first_or_same(talk->shown, &talk->asked_shown, question)) {
		*out = talk->ask->user;
		return true;
	}
	refuse(talk, "a question", question);
	return false;
}

static void responses_free(struct pam_response *responses, int n)
{
	for (int i = 0; i < n; i++)
		if (responses[i].resp != NULL) {
			explicit_bzero(responses[i].resp, strlen(responses[i].resp));
			free(responses[i].resp);
		}
	free(responses);
}

/* pam_conv(3).  Responses that are handed over are wiped and freed by the module. */
static int converse(int n, const struct pam_message **messages, struct pam_response **out, void *arg)
{
	struct pam_response *responses;
	const char *text;

	*out = NULL;
	if (n <= 0 || n > PAM_MAX_NUM_MSG)
		return PAM_CONV_ERR;
	responses = calloc((size_t)n, sizeof *responses);
	if (responses == NULL)
		return PAM_BUF_ERR;
	for (int i = 0; i < n; i++) {
		if (!reply_to(arg, messages[i], &text)) {
			responses_free(responses, n);
			return PAM_CONV_ERR;
		}
		if (text != NULL && (responses[i].resp = strdup(text)) == NULL) {
			responses_free(responses, n);
			return PAM_BUF_ERR;
		}
	}
	*out = responses;
	return PAM_SUCCESS;
}

/* pam_fail_delay(3): called by libpam in place of sleeping, with the delay that the modules agreed on. */
static void on_fail_delay(int status, unsigned delay_us, void *arg)
{
	struct talk *talk = arg;

	if (status != PAM_SUCCESS)
		talk->delay_us = delay_us < AUTH_DELAY_MAX_US ? delay_us : AUTH_DELAY_MAX_US;
}

/* ---- what PAM's codes mean -------------------------------------------------------------------------------------- */

struct meaning {
	int code;
	const char *text;
};

/* PAM judged, and says no.  Every code that is not here means that it could not judge. */
static const struct meaning denials[] = {
	{PAM_AUTH_ERR, "wrong password"},
	{PAM_USER_UNKNOWN, "unknown user"},
	{PAM_MAXTRIES, "too many tries"},
	{PAM_PERM_DENIED, "access is denied to this user"},
	{PAM_CRED_INSUFFICIENT, "the password may not be checked"},
	{PAM_ACCT_EXPIRED, "the account has expired"},
	{PAM_NEW_AUTHTOK_REQD, "the password must be changed first"},
	{PAM_AUTHTOK_EXPIRED, "the password has expired"},
	{PAM_CRED_EXPIRED, "the credentials have expired"},
};

static const struct meaning failures[] = {
	{PAM_AUTHINFO_UNAVAIL, "the user data base cannot be reached"},
	{PAM_CONV_ERR, "a module asked what cannot be answered"},
	{PAM_OPEN_ERR, "a module cannot be loaded"},
	{PAM_SYMBOL_ERR, "a module is not complete"},
	{PAM_MODULE_UNKNOWN, "a module is unknown"},
	{PAM_ABORT, "PAM gave up"},
	{PAM_BUF_ERR, "out of memory"},
};

static const char *meaning_of(const struct meaning *table, size_t n, int code)
{
	for (size_t i = 0; i < n; i++)
		if (table[i].code == code)
			return table[i].text;
	return NULL;
}

#define MEANING(table, code) meaning_of(table, sizeof(table) / sizeof *(table), code)

__attribute__((format(printf, 3, 4))) static void settle(struct auth_answer *answer, enum auth_verdict verdict,
							 const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	answer->verdict = verdict;
	text_escape(text, strlen(text), answer->reason, sizeof answer->reason);
}

/* A refusal by step ("pam_authenticate"), told for the audit. */
static void settle_refusal(struct auth_answer *answer, const struct talk *talk, pam_handle_t *pam, const char *step,
			   int code)
{
	const char *denial = MEANING(denials, code), *failure = MEANING(failures, code);

	answer->delay_us = talk->delay_us;
	if (talk->refused[0] != '\0')
		settle(answer, AUTH_FAILED, "%s", talk->refused);
	else if (code == PAM_AUTH_ERR && strcmp(step, "pam_acct_mgmt") == 0)
		settle(answer, AUTH_DENIED, "the account is barred (%s: %s)", step, pam_strerror(pam, code));
	else if (denial != NULL)
		settle(answer, AUTH_DENIED, "%s (%s: %s)", denial, step, pam_strerror(pam, code));
	else
		settle(answer, AUTH_FAILED, "%s (%s: %s)", failure != NULL ? failure : "a module failed", step,
		       pam_strerror(pam, code));
}

/* ---- one log-in -------------------------------------------------------------------------------------------------- */

static int start(const struct auth_child_options *options, const struct auth_ask *ask, struct talk *talk,
		 pam_handle_t **pam)
{
	struct pam_conv conv = {.conv = converse, .appdata_ptr = talk};
	char client[ADDR_TEXT_MAX];
	int code = options->pam_confdir == NULL
			   ? pam_start(ask->service, ask->user, &conv, pam)
			   : pam_start_confdir(ask->service, ask->user, &conv, options->pam_confdir, pam);

	if (code == PAM_SUCCESS)
		code = pam_set_item(*pam, PAM_RHOST, addr_format(&ask->client, client));
	if (code == PAM_SUCCESS)
		code = pam_set_item(*pam, PAM_FAIL_DELAY, (const void *)on_fail_delay);
	return code;
}

/* The name that PAM ended with (modules may map it), if we can use it. */
static void settle_user(struct auth_answer *answer, pam_handle_t *pam)
{
	const void *item = NULL;
	const char *why = "is not set";

	if (pam_get_item(pam, PAM_USER, &item) == PAM_SUCCESS && item != NULL)
		why = auth_text_refused(item, strlen(item));
	if (why != NULL) {
		settle(answer, AUTH_FAILED, "the user name that PAM returned %s", why);
		return;
	}
	snprintf(answer->user, sizeof answer->user, "%s", (const char *)item);
	answer->verdict = AUTH_OK;
	answer->reason[0] = '\0';
}

static void judge(const struct auth_child_options *options, const struct auth_ask *ask, bool authenticate,
		  struct auth_answer *answer)
{
	struct talk talk = {.ask = ask};
	const char *step = "pam_authenticate";
	pam_handle_t *pam = NULL;
	int code = start(options, ask, &talk, &pam);

	memcpy(answer->user, ask->user, sizeof answer->user);
	if (code != PAM_SUCCESS) {
		settle(answer, AUTH_FAILED, "PAM service \"%s\" cannot be used (%s)", ask->service,
		       pam_strerror(pam, code));
		if (pam != NULL)
			pam_end(pam, code);
		return;
	}
	if (authenticate)
		code = pam_authenticate(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (code == PAM_SUCCESS) {
		step = "pam_acct_mgmt";
		code = pam_acct_mgmt(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	}
	if (code == PAM_SUCCESS)
		settle_user(answer, pam);
	else
		settle_refusal(answer, &talk, pam, step, code);
	pam_end(pam, code);
	explicit_bzero(&talk, sizeof talk);
}

void auth_pam_judge(const struct auth_child_options *options, const struct auth_ask *ask, struct auth_answer *answer)
{
	judge(options, ask, true, answer);
}

void auth_pam_account(const struct auth_child_options *options, const struct auth_ask *ask, struct auth_answer *answer)
{
	judge(options, ask, false, answer);
}
