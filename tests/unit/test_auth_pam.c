/* A forked conversation child with the real libpam and real modules, on services in a directory of its own. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <crypt.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "auth/auth.h"
#include "auth/groups.h"
#include "common/log.h"

#define PATIENCE_MS 20000 /* no wait takes this long unless something is broken */
#define LONG_DELAY_S "50" /* more than our patience: a child that sleeps it fails the test */

static char dir[64];

/* ---- files ------------------------------------------------------------------------------------------------------- */

static const char *path_of(const char *name)
{
	static char path[384];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void write_bytes(const char *name, mode_t mode, const char *text, size_t len)
{
	int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

__attribute__((format(printf, 3, 4))) static void write_file(const char *name, mode_t mode, const char *format, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	write_bytes(name, mode, text, strlen(text));
}

/* A service whose auth stack is one line and whose account stack permits. */
static void service(const char *name, const char *auth)
{
	write_file(name, 0600, "auth required %s\naccount required pam_permit.so\n", auth);
}

static void asks(const char *name, const char *steps)
{
	char line[1024];

	snprintf(line, sizeof line, "%s %s", TEST_MODULE, steps);
	service(name, line);
}

static int make_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");
	char users[512];

	(void)state;
	snprintf(dir, sizeof dir, "%.40s/gw-pam-XXXXXX", tmp != NULL && tmp[0] == '/' ? tmp : "/tmp");
	if (mkdtemp(dir) == NULL)
		return -1;
	write_file("users", 0600, "gw-ann:%s\n", crypt("apple", "$5$gatewayd"));
	snprintf(users, sizeof users, "pam_pwdfile.so pwdfile=%s", path_of("users"));
	service("pwdfile", users);
	service("permit", "pam_permit.so");
	return 0;
}

static int remove_dir(void **state)
{
	DIR *d = opendir(dir);
	struct dirent *entry;

	(void)state;
	while (d != NULL && (entry = readdir(d)) != NULL)
		if (entry->d_name[0] != '.')
			unlink(path_of(entry->d_name));
	if (d != NULL)
		closedir(d);
	return rmdir(dir);
}

/* ---- the child --------------------------------------------------------------------------------------------------- */

struct kid {
	pid_t pid;
	int fd;
	struct ipc *link;
};

static void kid_main(int fd, const struct auth_child_options *options)
{
	struct rlimit none = {0, 0};
	struct ipc *link = ipc_new(fd, ROLE_PAM, ROLE_AUTH, 0);

	setrlimit(RLIMIT_CORE, &none);
	int rc = auth_child_serve(link, options);

	ipc_free(&link);
	_exit(rc == 0 ? 0 : 1);
}

static struct kid kid_start_with(const struct auth_child_options *options)
{
	struct kid k;
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	k.pid = fork();
	assert_true(k.pid >= 0);
	if (k.pid == 0) {
		close(fds[0]);
		kid_main(fds[1], options);
	}
	close(fds[1]);
	k.fd = fds[0];
	k.link = ipc_new(fds[0], ROLE_AUTH, ROLE_PAM, 0);
	return k;
}

static struct kid kid_start(const char *groups_file, bool fold_case)
{
	struct auth_child_options options = {.pam_confdir = dir, .fold_case = fold_case, .groups_file = groups_file};

	return kid_start_with(&options);
}

/* Its wait status. */
static int kid_end(struct kid *k)
{
	int status;

	ipc_free(&k->link);
	assert_int_equal(waitpid(k->pid, &status, 0), k->pid);
	return status;
}

static void assert_clean_end(struct kid *k)
{
	int status = kid_end(k);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

struct received {
	struct auth_answer answer;
	bool is_valid;
};

static void on_answer(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct received *received = arg;

	(void)link;
	received->is_valid = m->type == IPC_PAM_ANSWER && auth_get_answer(&r, &received->answer);
}

static void send_ask(struct kid *k, const char *pam_service, const char *user, const char *password)
{
	struct auth_ask a = {.id = 77, .listener = "lan", .client = addr_v4(0xc0000263)};
	uint8_t body[2048];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	snprintf(a.service, sizeof a.service, "%s", pam_service);
	snprintf(a.user, sizeof a.user, "%s", user);
	snprintf(a.password, sizeof a.password, "%s", password);
	auth_put_ask(&w, &a);
	assert_int_equal(ipc_send_wire(k->link, IPC_PAM_ASK, &w), 0);
	assert_int_equal(ipc_flush_blocking(k->link), 0);
	auth_ask_wipe(&a);
	explicit_bzero(body, sizeof body);
}

static void wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int n;

	do
		n = poll(&p, 1, PATIENCE_MS);
	while (n < 0 && errno == EINTR);
	assert_int_equal(n, 1);
}

/* False if the child died instead of answering. */
static bool receive(struct kid *k, struct auth_answer *answer)
{
	struct received received = {0};

	wait_readable(k->fd);
	if (ipc_receive_blocking(k->link, on_answer, &received) < 0)
		return false;
	assert_true(received.is_valid);
	*answer = received.answer;
	return true;
}

static struct auth_answer judge(struct kid *k, const char *pam_service, const char *user, const char *password)
{
	struct auth_answer answer;

	send_ask(k, pam_service, user, password);
	assert_true(receive(k, &answer));
	assert_true(answer.id == 77);
	return answer;
}

static void assert_verdict(const struct auth_answer *a, enum auth_verdict verdict, const char *reason)
{
	if (a->verdict != verdict || strstr(a->reason, reason) == NULL)
		fail_msg("verdict %d (\"%s\"), not %d (\"%s\")", a->verdict, a->reason, verdict, reason);
}

/* One child, one log-in. */
static struct auth_answer judge_once(const char *pam_service, const char *user, const char *password)
{
	struct kid k = kid_start(NULL, false);
	struct auth_answer a = judge(&k, pam_service, user, password);

	assert_clean_end(&k);
	return a;
}

/* ---- tests: passwords -------------------------------------------------------------------------------------------- */

static void test_password_file(void **state)
{
	struct kid k = kid_start(NULL, false);
	struct auth_answer a = judge(&k, "pwdfile", "gw-ann", "apple");

	(void)state;
	assert_verdict(&a, AUTH_OK, "");
	assert_string_equal(a.user, "gw-ann");
	assert_int_equal(a.ngroups, 0); /* NSS has never heard of her */
	assert_int_equal(a.delay_us, 0);
	a = judge(&k, "pwdfile", "gw-ann", "pear");
	assert_verdict(&a, AUTH_DENIED, "wrong password");
	assert_true(a.delay_us > 0);
	a = judge(&k, "pwdfile", "gw-bob", "apple");
	assert_verdict(&a, AUTH_DENIED, "unknown user");
	assert_string_equal(a.user, "gw-bob");
	a = judge(&k, "pwdfile", "GW-ANN", "apple");
	assert_verdict(&a, AUTH_DENIED, "");
	a = judge(&k, "pwdfile", "gw-ann", "apple");
	assert_verdict(&a, AUTH_OK, "");
	assert_clean_end(&k);
}

static void test_fold_case(void **state)
{
	struct kid k = kid_start(NULL, true);
	struct auth_answer a = judge(&k, "pwdfile", "GW-Ann", "apple");

	(void)state;
	assert_verdict(&a, AUTH_OK, "");
	assert_string_equal(a.user, "gw-ann");
	a = judge(&k, "pwdfile", "GW-Ann", "Apple");
	assert_verdict(&a, AUTH_DENIED, "wrong password");
	assert_clean_end(&k);
}

static void test_delay_is_told_not_slept(void **state)
{
	struct auth_answer a;

	(void)state;
	write_file("slow", 0600,
		   "auth optional pam_faildelay.so delay=" LONG_DELAY_S "000000\nauth required pam_deny.so\n");
	a = judge_once("slow", "gw-ann", "apple");
	assert_verdict(&a, AUTH_DENIED, "");
	assert_true(a.delay_us >= 20 * 1000 * 1000); /* libpam varies it */
	assert_true(a.delay_us <= AUTH_DELAY_MAX_US);
	write_file("slow", 0600,
		   "auth optional pam_faildelay.so delay=" LONG_DELAY_S
		   "000000\nauth required pam_permit.so\naccount required pam_permit.so\n");
	a = judge_once("slow", "gw-ann", "apple");
	assert_verdict(&a, AUTH_OK, "");
	assert_int_equal(a.delay_us, 0);
}

/* What modules may return, and what we make of it. */
static void test_codes(void **state)
{
	static const struct {
		const char *auth, *account;
		enum auth_verdict verdict;
		const char *reason;
	} cases[] = {
		{"success", "success", AUTH_OK, ""},
		{"auth_err", "success", AUTH_DENIED, "wrong password"},
		{"user_unknown", "success", AUTH_DENIED, "unknown user"},
		{"maxtries", "success", AUTH_DENIED, "too many tries"},
		{"perm_denied", "success", AUTH_DENIED, "access is denied"},
		{"cred_insufficient", "success", AUTH_DENIED, "may not be checked"},
		{"authinfo_unavail", "success", AUTH_FAILED, "cannot be reached"},
		{"system_err", "success", AUTH_FAILED, "a module failed (pam_authenticate"},
		{"conv_err", "success", AUTH_FAILED, "asked what cannot be answered"},
		{"success", "acct_expired", AUTH_DENIED, "the account has expired (pam_acct_mgmt"},
		{"success", "new_authtok_reqd", AUTH_DENIED, "must be changed"},
		{"success", "perm_denied", AUTH_DENIED, "access is denied"},
		{"success", "auth_err", AUTH_DENIED, "the account is barred"},
		{"success", "user_unknown", AUTH_DENIED, "unknown user"},
		{"success", "authtok_expired", AUTH_DENIED, "the password has expired"},
		{"success", "service_err", AUTH_FAILED, "a module failed (pam_acct_mgmt"},
	};
	struct kid k = kid_start(NULL, false);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		write_file("codes", 0600, "auth required pam_debug.so auth=%s\naccount required pam_debug.so acct=%s\n",
			   cases[i].auth, cases[i].account);
		struct auth_answer a = judge(&k, "codes", "gw-ann", "apple");

		assert_verdict(&a, cases[i].verdict, cases[i].reason);
		assert_null(strstr(a.reason, "apple"));
		assert_int_equal(a.ngroups, 0);
	}
	assert_clean_end(&k);
}

static void test_account_denied(void **state)
{
	struct auth_answer a;

	(void)state;
	write_file("barred", 0600, "auth required pam_pwdfile.so pwdfile=%s/users\naccount required pam_deny.so\n",
		   dir);
	a = judge_once("barred", "gw-ann", "apple");
	assert_verdict(&a, AUTH_DENIED, "the account is barred");
	write_file("barred", 0600, "auth required pam_pwdfile.so pwdfile=%s/users\n", dir); /* no account stack */
	a = judge_once("barred", "gw-ann", "apple");
	assert_true(a.verdict != AUTH_OK);
}

static void test_unusable_service(void **state)
{
	struct kid k = kid_start(NULL, false);
	struct auth_answer a = judge(&k, "absent", "gw-ann", "apple");

	(void)state;
	assert_verdict(&a, AUTH_FAILED, "");
	service("unloadable", "pam_no_such_module.so");
	a = judge(&k, "unloadable", "gw-ann", "apple");
	assert_verdict(&a, AUTH_FAILED, "a module");
	write_file("garbled", 0600, "auth \x01\x02 whatever\n\nnonsense");
	a = judge(&k, "garbled", "gw-ann", "apple");
	assert_verdict(&a, AUTH_FAILED, "");
	a = judge(&k, "pwdfile", "gw-ann", "apple");
	assert_verdict(&a, AUTH_OK, "");
	assert_clean_end(&k);
}

/* Without a directory of our own the system's services are used, whatever they are here: not ours, and not open. */
static void test_system_services(void **state)
{
	struct auth_child_options options = {.pam_confdir = NULL};
	struct kid k = kid_start_with(&options);
	struct auth_answer a = judge(&k, "pwdfile", "gw-ann", "apple");

	(void)state;
	assert_true(a.verdict != AUTH_OK);
	a = judge(&k, "other", "gw-ann", "apple");
	assert_true(a.verdict != AUTH_OK);
	assert_true(a.reason[0] != '\0');
	assert_clean_end(&k);
}

/* ---- tests: questions -------------------------------------------------------------------------------------------- */

static void test_questions(void **state)
{
	static const struct {
		const char *steps;
		enum auth_verdict verdict;
		const char *reason;
	} cases[] = {
		{"[hidden:Password: ] expect:apple", AUTH_OK, ""},
		{"[hidden:Password: ] [hidden:Password: ] expect:apple", AUTH_OK, ""},
		{"[shown:login: ] expect:gw-ann [hidden:Password: ] expect:apple", AUTH_OK, ""},
		{"info:hello [hidden:Password: ] error:late [hidden:Password: ] expect:apple", AUTH_OK, ""},
		{"[hidden:Password: ] [hidden:One-time code: ]", AUTH_FAILED, "cannot answer: \"One-time code: \""},
		{"[shown:login: ] [shown:Mother's maiden name: ]", AUTH_FAILED, "\"Mother's maiden name: \""},
		{"binary:x", AUTH_FAILED, "PAM asked a question that user name and password cannot answer"},
		{"[hidden:Password: ] [hidden:You said apple, really?]", AUTH_FAILED, "cannot answer: \"...\""},
		{"hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p "
		 "hidden:p "
		 "hidden:p hidden:p hidden:p hidden:p expect:apple",
		 AUTH_OK, ""},
		{"hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p hidden:p "
		 "hidden:p "
		 "hidden:p hidden:p hidden:p hidden:p hidden:p",
		 AUTH_FAILED, "PAM asked more questions"},
		{"[hidden:\x1b[2J\xff] [hidden:\x1b\\]2J\xff]", AUTH_FAILED, "\\x1b"},
		{"item:rhost=192.0.2.99 item:service=asks item:user=gw-ann item:tty=", AUTH_OK, ""},
	};
	struct kid k = kid_start(NULL, false);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		asks("asks", cases[i].steps);
		struct auth_answer a = judge(&k, "asks", "gw-ann", "apple");

		assert_verdict(&a, cases[i].verdict, cases[i].reason);
		assert_null(strstr(a.reason, "apple"));
	}
	assert_clean_end(&k);
}

static void test_canonical_user(void **state)
{
	struct kid k = kid_start(NULL, false);
	struct auth_answer a;

	(void)state;
	asks("asks", "user:ann@EXAMPLE.TEST");
	a = judge(&k, "asks", "gw-ann", "apple");
	assert_verdict(&a, AUTH_OK, "");
	assert_string_equal(a.user, "ann@EXAMPLE.TEST");
	asks("asks", "user:ann\x01x");
	a = judge(&k, "asks", "gw-ann", "apple");
	assert_verdict(&a, AUTH_FAILED, "the user name that PAM returned holds a control byte");
	assert_string_equal(a.user, "gw-ann");
	asks("asks", "user:");
	a = judge(&k, "asks", "gw-ann", "apple");
	assert_verdict(&a, AUTH_FAILED, "the user name that PAM returned is empty");
	assert_clean_end(&k);
}

/* ---- tests: modules that run programs, hang or crash ----------------------------------------------------------- */

static void script(const char *name, const char *options, const char *text)
{
	char file[32], auth[512];

	snprintf(file, sizeof file, "%s.sh", name);
	write_file(file, 0700, "#!/bin/sh\n%s\n", text);
	snprintf(auth, sizeof auth, "pam_exec.so quiet %s %s", options, path_of(file));
	service(name, auth);
}

static void test_exec(void **state)
{
	struct kid k = kid_start(NULL, false);
	struct auth_answer a;

	(void)state;
	script("exec", "expose_authtok",
	       "[ \"$(tr -d '\\0')\" = apple ] && [ \"$PAM_USER\" = gw-ann ] && [ \"$PAM_RHOST\" = 192.0.2.99 ] &&\n"
	       "[ \"$PAM_SERVICE\" = exec ] && [ -z \"$PAM_TTY\" ]");
	a = judge(&k, "exec", "gw-ann", "apple");
	assert_verdict(&a, AUTH_OK, "");
	a = judge(&k, "exec", "gw-ann", "pear");
	assert_true(a.verdict != AUTH_OK);
	assert_null(strstr(a.reason, "pear"));
	script("deaf", "expose_authtok", "exec <&-; exit 1");
	a = judge(&k, "deaf", "gw-ann", "apple");
	assert_true(a.verdict != AUTH_OK);
	script("crashing", "", "kill -SEGV $$");
	a = judge(&k, "crashing", "gw-ann", "apple");
	assert_true(a.verdict != AUTH_OK);
	script("garbage", "stdout", "head -c 100000 /dev/urandom");
	a = judge(&k, "garbage", "gw-ann", "apple");
	assert_verdict(&a, AUTH_OK, "");
	script("garbage", "stdout", "head -c 100000 /dev/urandom; exit 1");
	a = judge(&k, "garbage", "gw-ann", "apple");
	assert_verdict(&a, AUTH_FAILED, "");
	assert_clean_end(&k);
}

/* A module that never ends is ended from outside; the next child works. */
static void test_hanging_module(void **state)
{
	struct kid k = kid_start(NULL, false);
	struct auth_answer a;
	char text[512];
	int status, fifo;
	ssize_t n;

	(void)state;
	assert_int_equal(mkfifo(path_of("started"), 0600), 0);
	fifo = open(path_of("started"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(fifo >= 0);
	snprintf(text, sizeof text, "echo $$ > %s; exec sleep 1000", path_of("started"));
	script("hanging", "", text);
	send_ask(&k, "hanging", "gw-ann", "apple");
	wait_readable(fifo);
	n = read(fifo, text, sizeof text - 1);
	close(fifo);
	assert_int_equal(kill(k.pid, SIGKILL), 0);
	assert_false(receive(&k, &a));
	status = kid_end(&k);
	assert_true(WIFSIGNALED(status));
	/* pam_exec(8) gives its program a session of its own: it outlives the child, and is ours to end. */
	assert_true(n > 0);
	text[n] = '\0';
	assert_true(atoi(text) > 1);
	kill(atoi(text), SIGKILL);
	a = judge_once("pwdfile", "gw-ann", "apple");
	assert_verdict(&a, AUTH_OK, "");
}

static void test_crashing_module(void **state)
{
	struct kid k = kid_start(NULL, false), other = kid_start(NULL, false);
	struct auth_answer a;
	int status;

	(void)state;
	asks("crash", "[hidden:Password: ] crash");
	send_ask(&k, "crash", "gw-ann", "apple");
	assert_false(receive(&k, &a));
	status = kid_end(&k);
	assert_true(WIFSIGNALED(status));
	a = judge(&other, "pwdfile", "gw-ann", "apple");
	assert_verdict(&a, AUTH_OK, "");
	assert_clean_end(&other);
}

static void test_malformed_ask(void **state)
{
	struct kid k = kid_start(NULL, false);
	struct auth_answer a;
	int status;

	(void)state;
	assert_int_equal(ipc_send(k.link, IPC_PAM_ASK, "short", 5, NULL, 0), 0);
	assert_int_equal(ipc_flush_blocking(k.link), 0);
	assert_false(receive(&k, &a));
	status = kid_end(&k);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
}

/* ---- tests: groups ----------------------------------------------------------------------------------------------- */

static bool in_group(const struct auth_answer *a, const char *group)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->ngroups; i++)
		n += strcmp(a->groups[i], group) == 0;
	assert_true(n <= 1);
	return n == 1;
}

static void test_groups(void **state)
{
	char file[384];
	struct auth_answer a;
	struct kid k;

	(void)state;
	snprintf(file, sizeof file, "%s", path_of("groups"));
	k = kid_start(file, false);
	write_file("groups", 0600,
		   "# who is what\n\nhr:x:2001:gw-ann,gw-bob\neng:x:2002:gw-bob\nempty:x:2003:\nroot:x:0:root\n"
		   "ops:::root,gw-ann");
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_OK, "");
	assert_int_equal(a.ngroups, 2);
	assert_true(in_group(&a, "hr") && in_group(&a, "ops"));
	a = judge(&k, "permit", "gw-an", "x");
	assert_verdict(&a, AUTH_OK, "");
	assert_int_equal(a.ngroups, 0);
	a = judge(&k, "permit", "root", "x"); /* known to NSS on every machine, with a group of that name */
	assert_verdict(&a, AUTH_OK, "");
	assert_true(in_group(&a, "root") && in_group(&a, "ops") && !in_group(&a, "hr"));
	write_file("groups", 0600, "eng:x:1:gw-ann\n"); /* read anew each time */
	a = judge(&k, "permit", "gw-ann", "x");
	assert_int_equal(a.ngroups, 1);
	assert_true(in_group(&a, "eng"));
	assert_clean_end(&k);
	k = kid_start(NULL, false);
	a = judge(&k, "permit", "root", "x");
	assert_verdict(&a, AUTH_OK, "");
	assert_true(in_group(&a, "root") && !in_group(&a, "ops"));
	assert_clean_end(&k);
}

static void on_groups_told(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);

	(void)link;
	assert_int_equal(m->type, IPC_PAM_GROUPS_TOLD);
	assert_true(auth_get_groups_told(&r, arg));
}

#define MINDS_NO_CASE "ROOT"

/* In the place of the C library's, for the children as well: a name service that finds a group also by a name that it does not give it. */
int getgrnam_r(const char *name, struct group *entry, char *buf, size_t size, struct group **found)
{
	const struct group *g = getgrnam(strcmp(name, MINDS_NO_CASE) == 0 ? "root" : name);

	(void)buf, (void)size;
	*found = NULL;
	if (g != NULL) {
		*entry = *g;
		*found = entry;
	}
	return 0;
}

/* "kau": known, absent, untold. */
static const char *states_of(struct kid *k, const char *one, const char *two, const char *three)
{
	static struct auth_asked_groups asked;
	static char states[4];
	uint8_t body[8192];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	asked = (struct auth_asked_groups){.id = 5, .n = 3};
	strcpy(asked.names[0], one);
	strcpy(asked.names[1], two);
	strcpy(asked.names[2], three);
	auth_put_groups_ask(&w, &asked);
	asked.id = 0;
	assert_int_equal(ipc_send_wire(k->link, IPC_PAM_GROUPS_ASK, &w), 0);
	assert_int_equal(ipc_flush_blocking(k->link), 0);
	wait_readable(k->fd);
	assert_int_equal(ipc_receive_blocking(k->link, on_groups_told, &asked), 0);
	assert_int_equal(asked.id, 5);
	for (unsigned i = 0; i < 3; i++)
		states[i] = "aku"[asked.states[i]];
	return states;
}

/* A log-in brings those of NSS and of the file; what cannot be read tells of none that it has not. */
static void test_groups_that_there_are(void **state)
{
	char file[384];
	struct kid k = kid_start(NULL, false);

	(void)state;
	assert_string_equal(states_of(&k, "root", "there-is-no-such", "hr"), "kaa");
	assert_clean_end(&k);
	snprintf(file, sizeof file, "%s", path_of("groups"));
	unlink(file);
	k = kid_start(file, false);
	assert_string_equal(states_of(&k, "root", "there-is-no-such", "hr"), "kuu");
	write_file("groups", 0600, "# gone:x:1:gw-ann\nhr:x:2001:gw-ann\nempty:x:2003:\n\nlast:::");
	assert_string_equal(states_of(&k, "hr", "empty", "last"), "kkk");
	assert_string_equal(states_of(&k, "root", "h", "hrs"), "kaa");
	assert_string_equal(states_of(&k, "# gone", "gw-ann", "2001"), "aaa");
	write_file("groups", 0600, "hr:x:2001:gw-ann\neng\n");
	assert_string_equal(states_of(&k, "root", "hr", "other"), "kuu");
	/* A log-in brings it along by its own name. */
	assert_string_equal(states_of(&k, "root", MINDS_NO_CASE, "root"), "kuk");
	write_file("groups", 0600, "hr:x:2001:gw-ann\n");
	assert_string_equal(states_of(&k, "root", MINDS_NO_CASE, "other"), "kaa");
	assert_clean_end(&k);
}

/* A name service that takes long for each. */
static void test_groups_that_are_not_all_looked_for(void **state)
{
	static struct auth_asked_groups asked = {.n = 3, .names = {"root", "hr", "there-is-no-such"}};
	char file[384];

	(void)state;
	snprintf(file, sizeof file, "%s", path_of("groups"));
	write_file("groups", 0600, "hr:x:2001:gw-ann\n");
	auth_groups_look(&asked, file, INT64_MAX);
	assert_true(asked.states[0] == AUTH_GROUP_KNOWN && asked.states[1] == AUTH_GROUP_KNOWN && asked.states[2] == AUTH_GROUP_ABSENT);
	auth_groups_look(&asked, file, 0);
	assert_true(asked.states[0] == AUTH_GROUP_UNTOLD && asked.states[1] == AUTH_GROUP_KNOWN && asked.states[2] == AUTH_GROUP_UNTOLD);
}

/* n groups of gw-ann, each a line. */
static void write_groups(unsigned n, unsigned name_len)
{
	char text[16384], name[128];
	size_t len = 0;

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof name, "g%0*u", (int)name_len - 1, i);
		len += (size_t)snprintf(text + len, sizeof text - len, "%s:x:%u:gw-bob,gw-ann\n", name, 3000 + i);
	}
	assert_true(len < sizeof text);
	write_bytes("groups", 0600, text, len);
}

/* Whatever keeps the list from being whole fails the log-in: a deny rule would not see what is missing. */
static void test_groups_not_whole(void **state)
{
	static const char *const malformed[] = {
		"hr:x:1\n",
		"hr\n",
		":x:1:gw-ann\n",
		"hr:x:1:gw-ann:x\n",
		"hr:x:1:gw-ann\r\n",
		"hr:x:1:gw-bob, gw-ann\n",
		"hr:x:1: gw-ann\n",
		"hr:x:1:gw-ann \n",
		"a:x:1:\nb\tc:x:1:gw-ann\n",
	};
	static char large[AUTH_GROUPS_FILE_MAX + 1];
	char file[384];
	struct auth_answer a;
	struct kid k;

	(void)state;
	snprintf(file, sizeof file, "%s", path_of("groups"));
	unlink(file);
	k = kid_start(file, false);
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_FAILED, "cannot be opened");
	for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
		write_bytes("groups", 0600, malformed[i], strlen(malformed[i]));
		a = judge(&k, "permit", "gw-ann", "x");
		assert_verdict(&a, AUTH_FAILED, "of the groups file is not of the form");
		assert_int_equal(a.ngroups, 0);
	}
	write_bytes("groups", 0600, "h\0r:x:1:gw-ann\n", 15);
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_FAILED, "line 1");
	write_groups(AUTH_GROUPS_MAX, AUTH_GROUP_NAME_MAX);
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_OK, "");
	assert_int_equal(a.ngroups, AUTH_GROUPS_MAX);
	write_groups(AUTH_GROUPS_MAX + 1, 10);
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_FAILED, "more than 64 groups");
	assert_int_equal(a.ngroups, 0);
	write_groups(1, AUTH_GROUP_NAME_MAX + 1);
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_FAILED, "a name of 64 bytes");
	memset(large, '\n', sizeof large);
	write_bytes("groups", 0600, large, AUTH_GROUPS_FILE_MAX);
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_OK, "");
	write_bytes("groups", 0600, large, AUTH_GROUPS_FILE_MAX + 1);
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_FAILED, "is larger than");
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	a = judge(&k, "permit", "gw-ann", "x");
	assert_verdict(&a, AUTH_FAILED, "is not a regular file");
	unlink(file);
	assert_clean_end(&k);
}

/* ---- tests: secrets ---------------------------------------------------------------------------------------------- */

/* How often the bytes occur in the writable memory of a process. */
static unsigned occurrences(pid_t pid, const char *bytes, size_t len)
{
	char name[64], line[512], perms[5];
	unsigned long from, to;
	unsigned found = 0;
	int mem;
	FILE *maps;

	snprintf(name, sizeof name, "/proc/%d/mem", (int)pid);
	mem = open(name, O_RDONLY | O_CLOEXEC);
	snprintf(name, sizeof name, "/proc/%d/maps", (int)pid);
	maps = fopen(name, "re");
	if (mem < 0 || maps == NULL)
		skip(); /* ptrace is forbidden here */
	while (fgets(line, sizeof line, maps) != NULL) {
		if (sscanf(line, "%lx-%lx %4s", &from, &to, perms) != 3 || perms[1] != 'w' || to - from > 64UL << 20)
			continue;
		char *copy = malloc(to - from);
		ssize_t n = pread(mem, copy, to - from, (off_t)from);

		for (char *at = copy; n > 0 && (at = memmem(at, (size_t)(copy + n - at), bytes, len)) != NULL;
		     at += len)
			found++;
		free(copy);
	}
	fclose(maps);
	close(mem);
	return found;
}

/* Once it has answered, nothing of ours in the child remembers the password. */
static void test_password_is_wiped(void **state)
{
	struct kid k = kid_start(NULL, false);
	char password[33], user[33];
	struct auth_answer a;

	(void)state;
	for (int i = 0; i < 32; i++) {
		password[i] = (char)('a' + arc4random_uniform(26)); /* after the fork: not in the child's memory */
		user[i] = (char)('a' + arc4random_uniform(26));
	}
	password[32] = user[32] = '\0';
	asks("asks", "[hidden:Password: ] [hidden:Password: ] [hidden:Other: ]");
	a = judge(&k, "asks", user, password);
	assert_verdict(&a, AUTH_FAILED, "cannot answer");
	asks("asks", "[hidden:Password: ]");
	a = judge(&k, "asks", user, password);
	assert_verdict(&a, AUTH_OK, "");
	assert_true(occurrences(k.pid, user, 32) > 0); /* the search does find things */
	assert_int_equal(occurrences(k.pid, password, 32), 0);
	explicit_bzero(password, sizeof password);
	assert_clean_end(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_password_file),		cmocka_unit_test(test_fold_case),
		cmocka_unit_test(test_delay_is_told_not_slept), cmocka_unit_test(test_codes),
		cmocka_unit_test(test_account_denied),		cmocka_unit_test(test_unusable_service),
		cmocka_unit_test(test_system_services),		cmocka_unit_test(test_questions),
		cmocka_unit_test(test_canonical_user),		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_hanging_module),		cmocka_unit_test(test_crashing_module),
		cmocka_unit_test(test_malformed_ask),		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_groups_that_there_are),	cmocka_unit_test(test_groups_that_are_not_all_looked_for),
		cmocka_unit_test(test_groups_not_whole),	cmocka_unit_test(test_password_is_wiped),
	};

	signal(SIGPIPE, SIG_IGN);
	log_init("test", LOG_ERROR);
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
