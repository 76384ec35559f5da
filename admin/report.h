/* What a report tells, gathered in audit_report.c and written down in report_page.c and report_chart.c. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "schema/audit_verify.h"

#define REPORT_FINDINGS_MAX 20

struct report {
	int64_t since_us, until_us, step_us, made_us;
	char host[256], maker[256]; /* the machine; whoever asked */
	const char *source;	    /* "" for a running gateway, else the directory */
	/* Of schema/audit_summary.h: */
	json_t *totals, *series;
	json_t *tops;  /* name -> its part */
	json_t *lists; /* name -> array of events */
	json_t *more;  /* name -> how many are not told */
	/* Of the policy; NULL: it could not be asked. */
	json_t *revisions;  /* as policy log has them, newest first */
	json_t *exceptions; /* {"rule", "until", "ends_us", "owner", "ticket", "comment"}: rules that end, the next first */
	uint32_t active;
	bool complete; /* all of the audit could be read */
	enum { REPORT_NOT_VERIFIED, REPORT_SOUND, REPORT_BROKEN } integrity;
	struct audit_verified verified;
	size_t anchors; /* that were given */
	json_t *findings; /* texts, the first ones */
};

/* The whole page. */
void report_page(FILE *out, const struct report *r);

/* Charts over time, as one <figure> each. */
void report_chart_sessions(FILE *out, const struct report *r);
void report_chart_bytes(FILE *out, const struct report *r);

/* "2026-11-20 19:30", in UTC. */
#define REPORT_TIME_MAX 40
const char *report_time(int64_t us, char buf[REPORT_TIME_MAX]);
/* "12,345" */
const char *report_count(int64_t count, char buf[REPORT_TIME_MAX]);

extern const char report_style[];
