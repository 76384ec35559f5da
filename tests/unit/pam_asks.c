/* A PAM module for tests, loaded by the real libpam: each argument is a step.
 *
 *   hidden:TEXT shown:TEXT info:TEXT error:TEXT binary:TEXT   say or ask TEXT
 *   expect:TEXT                                               the last answer must be TEXT
 *   item:NAME=TEXT                                            the item (rhost, service, user, tty) must be TEXT ("":
 * unset) user:TEXT                                                 the user is TEXT from now on crash */
#include <security/pam_appl.h>
#include <security/pam_modules.h>
#include <stdlib.h>
#include <string.h>

static char last_answer[512];

/* The rest of arg after the prefix, or NULL. */
static const char *after(const char *arg, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(arg, prefix, len) == 0 ? arg + len : NULL;
}

static int say(pam_handle_t *pam, int style, const char *text)
{
	const struct pam_message message = {.msg_style = style, .msg = text}, *messages = &message;
	struct pam_response *response = NULL;
	const void *item;
	int code = pam_get_item(pam, PAM_CONV, &item);

	if (code != PAM_SUCCESS)
		return code;
	const struct pam_conv *conv = item;

	code = conv->conv(1, &messages, &response, conv->appdata_ptr);
	if (code != PAM_SUCCESS)
		return code;
	explicit_bzero(last_answer, sizeof last_answer);
	if (response->resp != NULL) {
		strncpy(last_answer, response->resp, sizeof last_answer - 1);
		explicit_bzero(response->resp, strlen(response->resp));
		free(response->resp);
	}
	free(response);
	return PAM_SUCCESS;
}

static int check_item(pam_handle_t *pam, const char *wanted)
{
	static const struct {
		const char *prefix;
		int item;
	} items[] = {{"rhost=", PAM_RHOST}, {"service=", PAM_SERVICE}, {"user=", PAM_USER}, {"tty=", PAM_TTY}};

	for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
		const char *text = after(wanted, items[i].prefix);
		const void *value = NULL;

		if (text == NULL)
			continue;
		if (pam_get_item(pam, items[i].item, &value) != PAM_SUCCESS)
			return PAM_SERVICE_ERR;
		return strcmp(value == NULL ? "" : value, text) == 0 ? PAM_SUCCESS : PAM_SERVICE_ERR;
	}
	return PAM_SERVICE_ERR;
}

static int step(pam_handle_t *pam, const char *arg)
{
	const char *text;

	if ((text = after(arg, "hidden:")) != NULL)
		return say(pam, PAM_PROMPT_ECHO_OFF, text);
	if ((text = after(arg, "shown:")) != NULL)
		return say(pam, PAM_PROMPT_ECHO_ON, text);
	if ((text = after(arg, "info:")) != NULL)
		return say(pam, PAM_TEXT_INFO, text);
	if ((text = after(arg, "error:")) != NULL)
		return say(pam, PAM_ERROR_MSG, text);
	if ((text = after(arg, "binary:")) != NULL)
		return say(pam, PAM_BINARY_PROMPT, text);
	if ((text = after(arg, "expect:")) != NULL)
		return strcmp(last_answer, text) == 0 ? PAM_SUCCESS : PAM_AUTH_ERR;
	if ((text = after(arg, "item:")) != NULL)
		return check_item(pam, text);
	if ((text = after(arg, "user:")) != NULL)
		return pam_set_item(pam, PAM_USER, text);
	if (strcmp(arg, "crash") == 0)
		abort();
	return PAM_SERVICE_ERR;
}

int pam_sm_authenticate(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	int code = PAM_SUCCESS;

	(void)flags;
	for (int i = 0; i < argc && code == PAM_SUCCESS; i++)
		code = step(pam, argv[i]);
	explicit_bzero(last_answer, sizeof last_answer);
	return code;
}

int pam_sm_setcred(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	(void)pam, (void)flags, (void)argc, (void)argv;
	abort(); /* nobody calls it */
}
