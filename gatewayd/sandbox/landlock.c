#include "config.h"

#include "gatewayd/sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"

/* glibc has no wrappers; see landlock(7). */
static int create_ruleset(const struct landlock_ruleset_attr *attr, size_t size, uint32_t flags)
{
	return (int)syscall(SYS_landlock_create_ruleset, attr, size, flags);
}

#define ABI1_ALL ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

/* What may be handled depends on the running kernel, not on the headers. */
static uint64_t handled_by(int abi)
{
	uint64_t all = ABI1_ALL;

	if (abi >= 2)
		all |= 1ULL << 13; /* LANDLOCK_ACCESS_FS_REFER */
	if (abi >= 3)
		all |= 1ULL << 14; /* LANDLOCK_ACCESS_FS_TRUNCATE */
	return all;
}

/* Read, write, make and remove plain files. */
static uint64_t file_access(int abi)
{
	uint64_t use = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
		       LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;

	return abi >= 3 ? use | 1ULL << 14 : use;
}

static int allow(int ruleset, const char *path, int flags, uint64_t access)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = access};
	int rc;

	rule.parent_fd = open(path, O_PATH | O_CLOEXEC | flags);
	if (rule.parent_fd < 0)
		return errno == ENOENT ? 0 : -1;
	rc = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	close(rule.parent_fd);
	return rc;
}

int landlock_close(bool keep_cwd, const char *readable, struct err *why)
{
	int abi = create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr attr;
	int ruleset;

	if (abi < 1) {
		log_warning("this kernel has no Landlock: files are guarded by permissions and system-call filters only");
		return 0;
	}
	attr = (struct landlock_ruleset_attr){.handled_access_fs = handled_by(abi)};
	ruleset = create_ruleset(&attr, sizeof attr, 0);
	if (ruleset < 0)
		return err_set_errno(why, "cannot make a Landlock rule set");
	if ((keep_cwd && allow(ruleset, ".", O_DIRECTORY, file_access(abi)) != 0) ||
	    (readable != NULL && allow(ruleset, readable, O_DIRECTORY, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR) != 0) ||
	    syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) {
		err_set_errno(why, "cannot close the Landlock sandbox");
		close(ruleset);
		return -1;
	}
	close(ruleset);
	return 0;
}
