/* The conversation child: asks in, answers out, one at a time.  It trusts neither its modules (a crash ends this
 * process and no other) nor, in its own answers, the bytes that modules give it. */
#include "config.h"

#include "auth/auth.h"

#include <signal.h>
#include <string.h>

#include "auth/groups.h"
#include "auth/pam.h"
#include "common/clock.h"
#include "common/locked.h"
#include "common/log.h"
#include "common/text.h"

#define ANSWER_BODY_MAX 16384

struct server {
	const struct auth_child_options *options;
	bool broken;
	struct auth_ask *ask; /* locked: modules may take long over it */
};

static void fold(char *text)
{
	for (; *text != '\0'; text++)
		if (*text >= 'A' && *text <= 'Z')
			*text = (char)(*text - 'A' + 'a');
}

static void judge(const struct auth_child_options *options, struct auth_ask *ask, struct auth_answer *answer)
{
	struct err why;

	if (options->fold_case)
		fold(ask->user);
	(ask->vouched ? auth_pam_account : auth_pam_judge)(options, ask, answer);
	answer->id = ask->id;
	auth_ask_wipe(ask);
	if (answer->verdict != AUTH_OK || auth_groups_find(answer, options->groups_file, &why) == 0)
		return;
	log_warning("the groups of \"%s\" cannot be told: %s", answer->user, why.text);
	answer->verdict = AUTH_FAILED;
	text_escape(why.text, strlen(why.text), answer->reason, sizeof answer->reason);
}

static void name_uid(struct server *server, struct ipc *master, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	uint8_t body[96];
	struct wire_writer writer = wire_writer_on(body, sizeof body);
	struct auth_login login;

	if (!auth_get_login_ask(&r, &login)) {
		log_error("the auth master sent a malformed %s", ipc_type_name(message->type));
		server->broken = true;
		return;
	}
	auth_login_find(&login);
	auth_put_login(&writer, &login);
	if (ipc_send_wire(master, IPC_PAM_LOGIN_TOLD, &writer) < 0)
		server->broken = true;
}

/* A name service may be slow for each of many: what is known before the master loses patience (asked_groups.c) is told. */
#define LOOK_US 3000000

static void look_for_groups(struct server *server, struct ipc *master, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	uint8_t body[256];
	struct wire_writer writer = wire_writer_on(body, sizeof body);
	struct auth_asked_groups asked;

	if (!auth_get_groups_ask(&r, &asked)) {
		log_error("the auth master sent a malformed %s", ipc_type_name(message->type));
		server->broken = true;
		return;
	}
	auth_groups_look(&asked, server->options->groups_file, clock_mono_us() + LOOK_US);
	auth_put_groups_told(&writer, &asked);
	if (ipc_send_wire(master, IPC_PAM_GROUPS_TOLD, &writer) < 0)
		server->broken = true;
}

static void on_message(struct ipc *master, struct ipc_message *message, void *arg)
{
	struct server *server = arg;
	struct wire_reader r = wire_reader_on(message->body, message->len);
	uint8_t body[ANSWER_BODY_MAX];
	struct wire_writer writer = wire_writer_on(body, sizeof body);
	struct auth_answer answer = {0};

	if (message->type == IPC_PAM_LOGIN_ASK) {
		name_uid(server, master, message);
		return;
	}
	if (message->type == IPC_PAM_GROUPS_ASK) {
		look_for_groups(server, master, message);
		return;
	}
	if (message->type != IPC_PAM_ASK || !auth_get_ask(&r, server->ask)) {
		log_error("the auth master sent a malformed %s", ipc_type_name(message->type));
		server->broken = true;
		return;
	}
	explicit_bzero((void *)(uintptr_t)message->body, message->len);
	judge(server->options, server->ask, &answer);
	auth_put_answer(&writer, &answer);
	if (ipc_send_wire(master, IPC_PAM_ANSWER, &writer) < 0)
		server->broken = true;
}

/* Returns once the master has something: 0, or -1 if there is to be no more of it. */
static int look_beside(struct ipc *master, const struct auth_child_options *options)
{
	struct ipc *next;

	if (options->beside == NULL)
		return 0;
	while (ipc_flush_blocking(options->beside) == 0 && (next = ipc_wait_blocking(master, options->beside)) != NULL)
		if (next == master)
			return 0;
		else if (options->heed(options->arg) != 0)
			return -1;
	return -1;
}

int auth_child_serve(struct ipc *master, const struct auth_child_options *options)
{
	struct server server = {.options = options, .ask = locked_new(sizeof *server.ask)};

	if (server.ask == NULL)
		log_fatal("out of memory for log-ins");
	signal(SIGPIPE, SIG_IGN);
	while (look_beside(master, options) == 0 && ipc_receive_blocking(master, on_message, &server) == 0)
		if (server.broken || ipc_flush_blocking(master) < 0)
			break;
	locked_free(server.ask, sizeof *server.ask);
	return server.broken ? -1 : 0;
}
