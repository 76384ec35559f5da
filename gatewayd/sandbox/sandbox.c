#include "config.h"

#include "gatewayd/sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "gatewayd/sandbox/landlock.h"

#define LENGTH(a) (sizeof(a) / sizeof *(a))

/* What an event loop, malloc(3) and the messages between our processes take. */
static const int base_calls[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(epoll_ctl), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg),
	SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(futex), SCMP_SYS(munmap),
	SCMP_SYS(mremap), SCMP_SYS(mlock2), SCMP_SYS(brk), SCMP_SYS(madvise), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getrandom), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(restart_syscall),
	SCMP_SYS(fcntl), SCMP_SYS(fstat), SCMP_SYS(lseek), SCMP_SYS(getrusage), SCMP_SYS(sched_yield), SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(pread64), SCMP_SYS(dup),
	SCMP_SYS(timerfd_settime),
};

static const int network_calls[] = {
	SCMP_SYS(accept4), SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(shutdown), SCMP_SYS(setsockopt),
	SCMP_SYS(getsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(recvmmsg), SCMP_SYS(sendmmsg),
	SCMP_SYS(splice), SCMP_SYS(pipe2),
};

static const int socket_server_calls[] = {
	SCMP_SYS(accept4), SCMP_SYS(shutdown), SCMP_SYS(setsockopt), SCMP_SYS(getsockopt), SCMP_SYS(pipe2), SCMP_SYS(socketpair),
};

static const int read_file_calls[] = {
	SCMP_SYS(openat), SCMP_SYS(open), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(newfstatat), SCMP_SYS(statx),
	SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(getcwd), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
	SCMP_SYS(getdents64), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(fadvise64),
};

/* SQLite's unix VFS. */
static const int database_calls[] = {
	SCMP_SYS(pwrite64), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(fchmod),
	SCMP_SYS(fchown), SCMP_SYS(geteuid), SCMP_SYS(getuid), SCMP_SYS(fallocate), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep), SCMP_SYS(statfs), SCMP_SYS(fstatfs), SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2),
	SCMP_SYS(chmod), SCMP_SYS(fchmodat), SCMP_SYS(flock), SCMP_SYS(mlock), SCMP_SYS(munlock),
};

/* The recorder's children that finish segments, and prune them: forked, never executed; it has the same walls. */
static const int fork_calls[] = {
	SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(fork), SCMP_SYS(vfork), SCMP_SYS(wait4), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
	SCMP_SYS(setpriority), SCMP_SYS(getppid), SCMP_SYS(prctl), SCMP_SYS(close_range),
	SCMP_SYS(socketpair),
};

/* SQLite reading files that are open already: it may have to rebuild the index of the log, or to wait for its turn. */
static const int open_database_calls[] = {
	SCMP_SYS(pwrite64), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(geteuid), SCMP_SYS(getuid),
};

/* The replay cache of libkrb5, locked while it is written. */
static const int replay_cache_calls[] = {
	SCMP_SYS(pwrite64), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(flock), SCMP_SYS(geteuid), SCMP_SYS(getuid),
	SCMP_SYS(getegid), SCMP_SYS(getgid), SCMP_SYS(umask), SCMP_SYS(fchmod), SCMP_SYS(getppid),
};

/* What plugins of libkrb5 may try (one of sssd's asks a daemon which user a principal is): they are told that it cannot be, and the
 * next is asked. */
static const int plugin_calls[] = {
	SCMP_SYS(socket), SCMP_SYS(connect), SCMP_SYS(setsockopt), SCMP_SYS(getsockopt), SCMP_SYS(getpeername), SCMP_SYS(ioctl),
	SCMP_SYS(pipe2), SCMP_SYS(socketpair), SCMP_SYS(bind), SCMP_SYS(getsockname), SCMP_SYS(sendmmsg), SCMP_SYS(eventfd2),
};

/* To look at paths.  What is found there cannot be opened. */
static const int look_calls[] = {SCMP_SYS(stat), SCMP_SYS(newfstatat), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2)};

/* Looks for a path, gets EACCES instead of a death: libraries try a file and go on without it. */
static const int refused_calls[] = {
	SCMP_SYS(openat), SCMP_SYS(open), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx), SCMP_SYS(access),
	SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getcwd), SCMP_SYS(uname),
	SCMP_SYS(sysinfo), SCMP_SYS(ioctl),
};

struct group {
	const int *calls;
	size_t n;
};

#define GROUP(calls) {(calls), LENGTH(calls)}

struct profile {
	bool confined;
	bool keep_cwd;
	const char *readable;
	struct group groups[4];
};

/* PAM modules run programs, read secrets and talk to directories: their process cannot be confined from here. */
static const struct profile profiles[ROLE_COUNT] = {
	[ROLE_WORKER] = {true, false, NULL, {GROUP(base_calls), GROUP(network_calls)}},
	[ROLE_AUTH] = {true, false, NULL, {GROUP(base_calls)}},
	[ROLE_GSSAPI] = {true, true, NULL, {GROUP(base_calls), GROUP(read_file_calls), GROUP(replay_cache_calls)}},
	[ROLE_RECORDER] = {true, true, NULL,
			   {GROUP(base_calls), GROUP(read_file_calls), GROUP(database_calls), GROUP(fork_calls)}},
	[ROLE_CONTROL] = {true, true, NULL,
			  {GROUP(base_calls), GROUP(read_file_calls), GROUP(database_calls), GROUP(socket_server_calls)}},
	[ROLE_COMPILER] = {true, false, "/usr/share/zoneinfo", {GROUP(base_calls), GROUP(read_file_calls)}},
	[ROLE_READER] = {true, false, ".", {GROUP(base_calls), GROUP(read_file_calls), GROUP(open_database_calls)}},
};

static bool uses(const struct profile *p, const int *calls)
{
	for (size_t i = 0; i < LENGTH(p->groups); i++)
		if (p->groups[i].calls == calls)
			return true;
	return false;
}

/* A worker talks to the network, and to nobody on this host but over the links it was given: a UNIX socket could be the control
 * socket, whose owner it may be. */
static int add_socket_rules(scmp_filter_ctx ctx)
{
	struct scmp_arg_cmp v4 = SCMP_A0(SCMP_CMP_EQ, AF_INET), v6 = SCMP_A0(SCMP_CMP_EQ, AF_INET6);
	int rc = 0;

	rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, &v4);
	rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, &v6);
	return rc;
}

/* Signals and limits are for this process alone. */
static int add_self_rules(scmp_filter_ctx ctx)
{
	struct scmp_arg_cmp self = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()), zero = SCMP_A0(SCMP_CMP_EQ, 0);
	int rc = 0;

	rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self);
	rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, &zero);
	return rc;
}

/* Memory never becomes executable; fstat(3) is newfstatat(2) with an empty path in glibc. */
static bool is_one_of(int call, const int *calls, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (calls[i] == call)
			return true;
	return false;
}

/* Paths that are looked for in vain. */
static int add_refusals(scmp_filter_ctx ctx, bool looks)
{
	struct scmp_arg_cmp empty_path = SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH);
	struct scmp_arg_cmp named_path = SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, 0);
	int rc = 0;

	for (size_t i = 0; i < LENGTH(refused_calls); i++)
		if (!looks || !is_one_of(refused_calls[i], look_calls, LENGTH(look_calls)))
			rc |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), refused_calls[i], 0);
	for (size_t i = 0; looks && i < LENGTH(look_calls); i++)
		rc |= seccomp_rule_add(ctx, SCMP_ACT_ALLOW, look_calls[i], 0);
	if (looks)
		return rc;
	rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1, &empty_path);
	return rc | seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(newfstatat), 1, &named_path);
}

static int add_argument_rules(scmp_filter_ctx ctx, bool files, bool looks)
{
	struct scmp_arg_cmp no_exec = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
	int rc = 0;

	rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, &no_exec);
	rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, &no_exec);
	return files ? rc : rc | add_refusals(ctx, looks);
}

static int install_filter(const struct profile *p, bool looks, struct err *why)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int rc;

	if (ctx == NULL)
		return err_set(why, "cannot make a system-call filter");
	rc = add_argument_rules(ctx, uses(p, read_file_calls), looks) | add_self_rules(ctx);
	if (uses(p, network_calls))
		rc |= add_socket_rules(ctx);
	for (size_t i = 0; uses(p, replay_cache_calls) && i < LENGTH(plugin_calls); i++)
		rc |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), plugin_calls[i], 0);
	for (size_t g = 0; g < LENGTH(p->groups); g++)
		for (size_t i = 0; i < p->groups[g].n; i++)
			rc |= seccomp_rule_add(ctx, SCMP_ACT_ALLOW, p->groups[g].calls[i], 0);
	if (rc == 0)
		rc = seccomp_load(ctx);
	seccomp_release(ctx);
	if (rc != 0)
		return err_set(why, "cannot install the system-call filter (%d): set  sandbox = false  if this kernel has no seccomp",
			       rc);
	return 0;
}

int sandbox_enter(enum role role, bool looks, struct err *why)
{
	const struct profile *p = &profiles[role];

	if (!p->confined)
		return 0;
#ifdef GW_SANITIZED
	log_debug("built with sanitizers: not confined");
	return 0;
#endif
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return err_set_errno(why, "cannot give up new privileges");
	if (landlock_close(p->keep_cwd, p->readable, why) != 0)
		return -1;
	return install_filter(p, looks, why);
}
