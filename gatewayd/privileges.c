#include "config.h"

#include "gatewayd/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

int privileges_drop(const char *user, struct err *why)
{
	struct passwd *pw;

	if (geteuid() != 0 || strcmp(user, "root") == 0)
		return 0;
	errno = 0;
	pw = getpwnam(user);
	if (pw == NULL)
		return err_set(why, "there is no user '%s' to run as: create it (adduser --system %s), or set another in gatewayd.conf",
			       user, user);
	if (setgroups(0, NULL) != 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) != 0 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) != 0)
		return err_set_errno(why, "cannot become user '%s'", user);
	/* Leaving uid 0 clears all capabilities unless something went very wrong. */
	if (pw->pw_uid != 0 && (setuid(0) == 0 || seteuid(0) == 0))
		return err_set(why, "could become root again after dropping to '%s'", user);
	return 0;
}

static bool is_kept(cap_value_t cap)
{
	static const cap_value_t kept[] = {
		CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_KILL, CAP_CHOWN, CAP_FOWNER, /* children, their directories */
		CAP_NET_BIND_SERVICE,                                                 /* listeners below 1024 */
		CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE, CAP_AUDIT_WRITE,               /* PAM modules in the children */
	};

	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		if (kept[i] == cap)
			return true;
	return false;
}

int privileges_limit_supervisor(struct err *why)
{
	cap_t caps;

	if (geteuid() != 0)
		return 0;
	caps = cap_init();
	for (cap_value_t cap = 0; caps != NULL && cap < cap_max_bits(); cap++) {
		int held = cap_get_bound(cap);

		if (is_kept(cap) && held == 1) {
			cap_set_flag(caps, CAP_PERMITTED, 1, &cap, CAP_SET);
			cap_set_flag(caps, CAP_EFFECTIVE, 1, &cap, CAP_SET);
		} else if (held == 1) {
			cap_drop_bound(cap);
		}
	}
	/* A container may hold fewer than we would keep: take what there is. */
	cap_t now = cap_get_proc();

	for (cap_value_t cap = 0; caps != NULL && now != NULL && cap < cap_max_bits(); cap++) {
		cap_flag_value_t permitted = CAP_CLEAR;

		cap_get_flag(now, cap, CAP_PERMITTED, &permitted);
		if (permitted == CAP_CLEAR) {
			cap_set_flag(caps, CAP_PERMITTED, 1, &cap, CAP_CLEAR);
			cap_set_flag(caps, CAP_EFFECTIVE, 1, &cap, CAP_CLEAR);
		}
	}
	int rc = caps == NULL || now == NULL ? -1 : cap_set_proc(caps);

	cap_free(caps);
	cap_free(now);
	return rc == 0 ? 0 : err_set_errno(why, "cannot limit the supervisor's capabilities");
}
