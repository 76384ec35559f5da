/* Whether the audit is what was recorded, for a report. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/audit_proofs.h"
#include "admin/progress.h"
#include "admin/report.h"

static void on_finding(const char *text, void *arg)
{
	struct report *r = arg;

	if (json_array_size(r->findings) < REPORT_FINDINGS_MAX)
		json_array_append_new(r->findings, json_string(text));
}

static bool on_progress(uint64_t rows, uint64_t of, void *arg)
{
	(void)rows, (void)of, (void)arg;
	return !progress_interrupted();
}

static int verify_here(struct audit_proofs *proofs, const char *dir, struct report *r)
{
	struct audit_verify_options options = {.finding = on_finding, .progress = on_progress, .arg = r};
	struct err why;
	int rc;

	audit_proofs_apply(proofs, &options);
	r->findings = json_array();
	r->anchors = proofs->nanchors;
	progress_watch();
	progress_show("verifying the audit");
	rc = audit_verify(&options, &r->verified, &why);
	progress_hide();
	progress_unwatch();
	if (rc != 0)
		return admin_fail(ADMIN_REFUSED, "%s cannot be verified: %s", dir, why.text);
	r->integrity = r->verified.findings == 0 ? REPORT_SOUND : REPORT_BROKEN;
	return ADMIN_FINE;
}

int audit_integrity(struct audit_proofs *proofs, const char *dir, struct report *r)
{
	int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), code;

	if (here < 0 || chdir(dir) != 0)
		code = admin_fail(ADMIN_REFUSED, "cannot enter %s, to verify it: %s", dir, strerror(errno));
	else
		code = verify_here(proofs, dir, r);
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
