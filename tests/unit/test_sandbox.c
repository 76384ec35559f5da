/* What a confined role can still open, tried in a process of its own that has gone through the same door. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "gatewayd/sandbox/sandbox.h"

static char directory[] = "/tmp/gwsandbox.XXXXXX";

/* True if it could be opened. */
static bool opens(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static const char *const paths[] = {"/etc/passwd", "/etc/krb5.conf", "/etc/hosts", "/proc/self/environ", "/proc/self/mem", "/proc/self/fd/0",
				    "/dev/null", "/dev/urandom", "/", ".", "there", "/tmp"};

/* The bit of the first that can be opened, and how; 0 if nothing can. */
static int first_that_opens(void)
{
	static const int ways[] = {O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_CREAT, O_RDWR | O_TRUNC, O_WRONLY | O_APPEND, O_RDWR | O_TMPFILE,
				   O_RDONLY | O_DIRECTORY, O_PATH};

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		for (size_t k = 0; k < sizeof ways / sizeof *ways; k++)
			if (opens(paths[i], ways[k]))
				return 1 + (int)i;
	return 0;
}

/* Exit status of judge in a child that is confined as the role; -signal if it was killed. */
static int confined(enum role role, bool looks, int (*judge)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct err why;

		if (chdir(directory) != 0 || sandbox_enter(role, looks, &why) != 0)
			_exit(120);
		_exit(judge());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_roles_that_meet_clients_open_nothing(void **state)
{
	(void)state;
	for (int looks = 0; looks < 2; looks++) {
		assert_int_equal(confined(ROLE_WORKER, looks, first_that_opens), 0);
		assert_int_equal(confined(ROLE_AUTH, looks, first_that_opens), 0);
	}
}

static int sees_a_path(void)
{
	struct stat st;

	return stat("/", &st) == 0 || access("/", R_OK) == 0;
}

static void test_who_looks_and_who_does_not(void **state)
{
	(void)state;
	assert_int_equal(confined(ROLE_WORKER, false, sees_a_path), 0);
	assert_int_equal(confined(ROLE_WORKER, true, sees_a_path), 1);
}

/* Its replay cache, and nothing else.  (Without Landlock, permissions guard the rest.) */
static int gssapi_files(void)
{
	if (!opens("cache", O_RDWR | O_CREAT) || !opens("cache", O_RDONLY))
		return 1;
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		if (paths[i][0] == '/' && (opens(paths[i], O_RDONLY) || opens(paths[i], O_WRONLY)))
			return 2 + (int)i;
	return 0;
}

static void test_gssapi_has_its_directory(void **state)
{
	(void)state;
	assert_int_equal(confined(ROLE_GSSAPI, true, gssapi_files), 0);
}

static int executes(void)
{
	execl("/bin/true", "true", (char *)NULL);
	return errno == EACCES;
}

static void test_nothing_is_executed(void **state)
{
	(void)state;
	assert_int_equal(confined(ROLE_WORKER, true, executes), -31 /* SIGSYS */);
	assert_int_equal(confined(ROLE_GSSAPI, true, executes), -31);
}

static int opens_what_anybody_may(void)
{
	return opens("/etc/passwd", O_RDONLY);
}

/* Their runtime opens files and makes calls of its own: nothing else may be judged by such a build. */
static void test_sanitizers_are_not_confined(void **state)
{
	(void)state;
	assert_int_equal(confined(ROLE_WORKER, true, opens_what_anybody_may), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roles_that_meet_clients_open_nothing), cmocka_unit_test(test_who_looks_and_who_does_not),
		cmocka_unit_test(test_gssapi_has_its_directory), cmocka_unit_test(test_nothing_is_executed),
	}, unconfined[] = {cmocka_unit_test(test_sanitizers_are_not_confined)};
#ifdef GW_SANITIZED
	const bool sanitized = true;
#else
	const bool sanitized = false;
#endif
	int rc;

	if (mkdtemp(directory) == NULL)
		return 1;
	char there[64], cache[64];

	snprintf(there, sizeof there, "%s/there", directory);
	snprintf(cache, sizeof cache, "%s/cache", directory);
	fclose(fopen(there, "w"));
	rc = sanitized ? cmocka_run_group_tests(unconfined, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
	unlink(there);
	unlink(cache);
	rmdir(directory);
	return rc;
}
