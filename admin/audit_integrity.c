/* Whether the audit is what was recorded, for a report. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/report.h"

static void on_finding(const char *text, void *arg)
{
	struct report *r = arg;

	if (json_array_size(r->findings) < REPORT_FINDINGS_MAX)
		json_array_append_new(r->findings, json_string(text));
}

static int verify_here(const struct audit_keys *keys, const uint8_t store[AUDIT_ID_BYTES], const char *dir, struct report *r)
{
	struct audit_verify_options options = {.keys = keys, .finding = on_finding, .arg = r};
	struct err why;

	memcpy(options.store, store, sizeof options.store);
	r->findings = json_array();
	if (audit_verify(&options, &r->verified, &why) != 0)
		return admin_fail(ADMIN_REFUSED, "%s cannot be verified: %s", dir, why.text);
	r->integrity = r->verified.findings == 0 ? REPORT_SOUND : REPORT_BROKEN;
	return ADMIN_FINE;
}

int audit_integrity(const char *key, const char *dir, struct report *r)
{
	uint8_t store[AUDIT_ID_BYTES];
	struct audit_keys keys;
	struct err why;
	int here, code;

	if (audit_first_key_read(key, store, &keys, &why) != 0)
		return admin_fail(ADMIN_REFUSED, "%s", why.text);
	here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (here < 0 || chdir(dir) != 0)
		code = admin_fail(ADMIN_REFUSED, "cannot enter %s, to verify it: %s", dir, strerror(errno));
	else
		code = verify_here(&keys, store, dir, r);
	sodium_memzero(&keys, sizeof keys);
	if (here >= 0) {
		if (fchdir(here) != 0)
			code = admin_fail(ADMIN_REFUSED, "cannot go back to where we were: %s", strerror(errno));
		close(here);
	}
	return code;
}

void audit_policy_path(const char *dir, char *path, size_t size)
{
	snprintf(path, size, "%s/../policy/policy.db", dir);
}
