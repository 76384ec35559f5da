#include "config.h"

#include <inttypes.h>
#include <pwd.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/format.h"
#include "admin/html.h"
#include "admin/report.h"
#include "schema/audit_summary.h"

#define DAY_US (86400 * INT64_C(1000000))
/* A rule that ends within this time is about to. */
#define SOON_DAYS 30

const char *report_time(int64_t us, char buf[REPORT_TIME_MAX])
{
	time_t seconds = (time_t)(us / 1000000);
	struct tm tm;

	if (gmtime_r(&seconds, &tm) == NULL || strftime(buf, REPORT_TIME_MAX, "%Y-%m-%d %H:%M", &tm) == 0)
		snprintf(buf, REPORT_TIME_MAX, "-");
	return buf;
}

const char *report_count(int64_t count, char buf[REPORT_TIME_MAX])
{
	char digits[32];
	int n = snprintf(digits, sizeof digits, "%" PRId64, count);
	char *out = buf;

	for (int i = 0; i < n; i++) {
		if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-')
			*out++ = ',';
		*out++ = digits[i];
	}
	*out = '\0';
	return buf;
}

/* RFC 3339 as rows have it, to the second. */
static const char *row_time(const json_t *row, char buf[REPORT_TIME_MAX])
{
	char member[FORMAT_TEXT_MAX];
	const char *text = format_member(row, "time", member);

	snprintf(buf, REPORT_TIME_MAX, "%.10s %.8s", text, strlen(text) > 11 ? text + 11 : "");
	return buf;
}

static int64_t total(const struct report *r, const char *key)
{
	return format_number(r->totals, key);
}

/* "uid 1000" is who the kernel said it was; the name is this machine's. */
static const char *author(const char *said, char *buf, size_t size)
{
	const struct passwd *pw = strncmp(said, "uid ", 4) == 0 ? getpwuid((uid_t)strtoul(said + 4, NULL, 10)) : NULL;

	if (pw == NULL)
		snprintf(buf, size, "%s", said);
	else
		snprintf(buf, size, "%s (%s)", pw->pw_name, said);
	return buf;
}

/* ---- head -----------------------------------------------------------------------------------------------------------
 */

static void head(FILE *out)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	char text[sodium_base64_ENCODED_LEN(crypto_hash_sha256_BYTES, sodium_base64_VARIANT_ORIGINAL)];

	crypto_hash_sha256(hash, (const uint8_t *)report_style, strlen(report_style));
	sodium_bin2base64(text, sizeof text, hash, sizeof hash, sodium_base64_VARIANT_ORIGINAL);
	fprintf(out,
		"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; "
		"form-action 'none'\">\n"
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" "
		"content=\"no-referrer\">\n<meta name=\"robots\" content=\"noindex\">\n<meta name=\"color-scheme\" content=\"light "
		"dark\">\n<meta name=\"generator\" content=\"gatewayctl " PACKAGE_VERSION "\">\n<title>Gateway audit report</title>\n"
		"<style>%s</style>\n</head>\n",
		text, report_style);
}

static void fact(FILE *out, const char *term, const char *text)
{
	html_print(out, "<div><dt>%s</dt><dd>%s</dd></div>", term, text);
}

static void title(FILE *out, const struct report *r)
{
	char since[REPORT_TIME_MAX], until[REPORT_TIME_MAX], made[REPORT_TIME_MAX + 8], text[300];

	html_print(out, "<body>\n<header><h1><span class=\"over\">Gateway audit report</span> %s</h1><p class=\"span\">", r->host);
	html_print(out, "<time>%s</time> to <time>%s</time> UTC</p>\n<dl class=\"facts\">", report_time(r->since_us, since),
		   report_time(r->until_us, until));
	report_time(r->made_us, made);
	strcat(made, " UTC");
	fact(out, "Made", made);
	fact(out, "By", r->maker);
	fact(out, "From", r->source[0] == '\0' ? "the running gateway" : r->source);
	if (r->revisions == NULL)
		snprintf(text, sizeof text, "not told");
	else
		snprintf(text, sizeof text, "revision %u", r->active);
	fact(out, "Policy in force", text);
	html_print(out, "</dl></header>\n<main>\n");
}

/* ---- integrity ------------------------------------------------------------------------------------------------------
 */

static void verdict_text(FILE *out, const struct report *r)
{
	char rows[REPORT_TIME_MAX], entries[REPORT_TIME_MAX], first[REPORT_TIME_MAX], last[REPORT_TIME_MAX];
	char mac[2 * AUDIT_MAC_BYTES + 1];

	if (r->integrity == REPORT_NOT_VERIFIED) {
		html_print(out, "<strong>Integrity was not verified</strong><p>No key was given, so nothing here says whether the "
				"records are those that were made. The auditor who keeps the first key makes a report that "
				"does with <code>gatewayctl audit report --key FILE</code>.</p>");
		return;
	}
	html_print(out, r->integrity == REPORT_SOUND ? "<strong>The records are what was recorded</strong>"
						     : "<strong>The records are not what was recorded</strong>");
	html_print(out, "<p>The whole audit was verified with the auditor&#39;s key: %s rows in %s entries of the chain, %s to %s UTC. ",
		   report_count((int64_t)r->verified.rows, rows), report_count((int64_t)r->verified.entries, entries),
		   report_time(r->verified.first_us, first), report_time(r->verified.last_us, last));
	sodium_bin2hex(mac, sizeof mac, r->verified.head.mac, AUDIT_MAC_BYTES);
	fprintf(out, "It ends with entry %" PRId64 ", <code>", (int64_t)r->verified.head.entry);
	html_print(out, "%s</code>.</p>", mac);
	if (r->verified.pruned > 0 || r->verified.pruned_segments > 0)
		html_print(out,
			   "<p>%s rows were pruned by order, as the audit itself declares, and segments up to %s as a "
			   "whole: what they told is in none of the sums below.</p>",
			   report_count((int64_t)r->verified.pruned, rows),
			   report_count((int64_t)r->verified.pruned_segments, entries));
	if (r->anchors > 0)
		html_print(out, "<p>%s of %s anchors that were kept elsewhere fit%s%s%s.</p>",
			   report_count((int64_t)r->verified.anchors, rows), report_count((int64_t)r->anchors, entries),
			   r->verified.pruned_anchors > 0 ? "; " : "",
			   r->verified.pruned_anchors > 0 ? report_count((int64_t)r->verified.pruned_anchors, first) : "",
			   r->verified.pruned_anchors > 0 ? " are of segments that were pruned" : "");
	else
		html_print(out, "<p>No anchor that was kept elsewhere was compared: had everything, the key included, been put back to one "
				"earlier moment, this would not show.</p>");
	if (r->integrity == REPORT_BROKEN) {
		const json_t *finding;
		size_t i;

		html_print(out, "<p>%s findings; the first is the first break:</p><ul>",
			   report_count((int64_t)r->verified.findings, rows));
		json_array_foreach(r->findings, i, finding) html_print(out, "<li>%s</li>", json_string_value(finding));
		html_print(out, "</ul>");
	}
}

static void verdict(FILE *out, const struct report *r)
{
	static const char *const classes[] = {"open", "good", "bad"};
	static const char *const marks[] = {"M11 22a5 5 0 1 1 7.5 4.3c-1.600.9-2.500 1.500-2.500 3.200M16 24v.2", "M10 16.500l4 4 8-9",
					    "M11 11l10 10M21 11L11 21"};

	fprintf(out,
		"<section class=\"verdict %s\" aria-label=\"Integrity\"><svg viewBox=\"0 0 32 32\" aria-hidden=\"true\" fill=\"none\" "
		"stroke=\"currentColor\" stroke-width=\"2.5\" stroke-linecap=\"round\" stroke-linejoin=\"round\"><circle cx=\"16\" "
		"cy=\"16\" r=\"13\"/><path d=\"%s\"/></svg>",
		classes[r->integrity], r->integrity == REPORT_NOT_VERIFIED ? "M10.500 16h11" : marks[r->integrity]);
	verdict_text(out, r);
	html_print(out, "</section>\n");
	if (!r->complete)
		html_print(out, "<section class=\"verdict bad\" aria-label=\"Completeness\"><svg viewBox=\"0 0 32 32\" "
				"aria-hidden=\"true\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2.5\" "
				"stroke-linecap=\"round\"><circle cx=\"16\" cy=\"16\" r=\"13\"/><path d=\"M16 9v8M16 22v.2\"/></svg>"
				"<strong>This report is not complete</strong><p>Not all of the audit could be read. What could be "
				"is told here.</p></section>\n");
}

/* ---- figures --------------------------------------------------------------------------------------------------------
 */

static void tile(FILE *out, const char *term, const char *value, bool bad)
{
	html_print(out, bad ? "<div class=\"bad\">" : "<div>");
	html_print(out, "<dt>%s</dt><dd>%s</dd></div>", term, value);
}

static void tile_count(FILE *out, const struct report *r, const char *term, const char *key, bool bad)
{
	char buf[REPORT_TIME_MAX];

	tile(out, term, report_count(total(r, key), buf), bad && total(r, key) > 0);
}

static void tiles(FILE *out, const struct report *r)
{
	char buf[FORMAT_TEXT_MAX];

	html_print(out, "<dl class=\"tiles\">");
	tile_count(out, r, "sessions granted", "sessions", false);
	tile_count(out, r, "requests denied", "denied", true);
	tile(out, "received by clients", format_bytes((uint64_t)total(r, "bytes_down"), buf), false);
	tile(out, "sent by clients", format_bytes((uint64_t)total(r, "bytes_up"), buf), false);
	tile_count(out, r, "users", "users", false);
	tile_count(out, r, "destinations", "destinations", false);
	tile_count(out, r, "failed log-ins", "failed", true);
	tile_count(out, r, "sessions lost in a crash", "lost", true);
	html_print(out, "</dl>\n");
}

/* ---- tables of the busiest --------------------------------------------------------------------------------------------
 */

static const json_t *groups_of(const struct report *r, const char *of)
{
	return json_object_get(json_object_get(r->tops, of), "groups");
}

static void share(FILE *out, int64_t value, int64_t most, const char *class)
{
	double width = most <= 0 ? 0 : 100.0 * (double)value / (double)most;

	fprintf(out,
		"<td class=\"s\"><svg class=\"share\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect "
		"class=\"bed\" width=\"100\" height=\"6\"/><rect class=\"%s\" width=\"%.2f\" height=\"6\"/></svg></td>",
		class, width > 0 && width < .7 ? .7 : width);
}

static int64_t most_of(const json_t *groups, const char *key)
{
	const json_t *group;
	int64_t most = 0;
	size_t i;

	json_array_foreach(groups, i, group) most = format_number(group, key) > most ? format_number(group, key) : most;
	return most;
}

static void tell_rest(FILE *out, const struct report *r, const char *of)
{
	int64_t count = format_number(json_object_get(r->tops, of), "count");
	char buf[REPORT_TIME_MAX];

	if (count > AUDIT_SUMMARY_TOP)
		html_print(out, "<p class=\"more\">The first of %s.</p>", report_count(count, buf));
}

static void key_cell(FILE *out, const json_t *group)
{
	char buf[FORMAT_TEXT_MAX];
	const char *key = format_member(group, "key", buf);

	html_print(out, "<tr><th scope=\"row\"><bdi>%s</bdi></th>", strcmp(key, "-") == 0 ? "(none)" : key);
}

static void number_cell(FILE *out, int64_t value)
{
	char buf[REPORT_TIME_MAX];

	html_print(out, value == 0 ? "<td class=\"n dim\">%s</td>" : "<td class=\"n\">%s</td>", report_count(value, buf));
}

static void bytes_cell(FILE *out, int64_t value)
{
	char buf[FORMAT_TEXT_MAX];

	html_print(out, "<td class=\"n\">%s</td>", format_bytes((uint64_t)value, buf));
}

static bool is_empty(FILE *out, const json_t *groups, const char *caption)
{
	if (json_array_size(groups) > 0)
		return false;
	html_print(out, "<h3>%s</h3><p class=\"none\">None.</p>\n", caption);
	return true;
}

/* Sessions, refusals (where they are counted) and bytes by one key. */
static void busiest(FILE *out, const struct report *r, const char *of, const char *caption, const char *head, bool denied)
{
	const json_t *groups = groups_of(r, of), *group;
	int64_t most = most_of(groups, "sessions");
	size_t i;

	if (is_empty(out, groups, caption))
		return;
	html_print(out,
		   "<div class=\"wide keep\"><table><caption>%s</caption><thead><tr><th scope=\"col\">%s</th><td class=\"s\"></td><th "
		   "scope=\"col\" class=\"n\">Sessions</th>",
		   caption, head);
	html_print(out, denied ? "<th scope=\"col\" class=\"n\">Denied</th>" : "");
	html_print(out, "<th scope=\"col\" class=\"n\">Received</th><th scope=\"col\" class=\"n\">Sent</th></tr></thead><tbody>");
	json_array_foreach(groups, i, group)
	{
		key_cell(out, group);
		share(out, format_number(group, "sessions"), most, "main");
		number_cell(out, format_number(group, "sessions"));
		if (denied)
			number_cell(out, format_number(group, "denied"));
		bytes_cell(out, format_number(group, "bytes_down"));
		bytes_cell(out, format_number(group, "bytes_up"));
		html_print(out, "</tr>");
	}
	html_print(out, "</tbody></table></div>");
	tell_rest(out, r, of);
	html_print(out, "\n");
}

/* One count by one key: refusals, or (sessions) grants. */
static void counted(FILE *out, const struct report *r, const char *of, const char *caption, const char *head, bool sessions)
{
	const json_t *groups = groups_of(r, of), *group;
	const char *key = sessions ? "sessions" : "denied";
	int64_t most = most_of(groups, key);
	size_t i;

	html_print(out, "<div class=\"keep\">");
	if (!is_empty(out, groups, caption)) {
		html_print(out,
			   "<table><caption>%s</caption><thead><tr><th scope=\"col\">%s</th><td class=\"s\"></td><th scope=\"col\" "
			   "class=\"n\">%s</th></tr></thead><tbody>",
			   caption, head, sessions ? "Sessions" : "Times");
		json_array_foreach(groups, i, group)
		{
			if (format_number(group, key) == 0)
				continue;
			key_cell(out, group);
			share(out, format_number(group, key), most, sessions ? "main" : "badly");
			number_cell(out, format_number(group, key));
			html_print(out, "</tr>");
		}
		html_print(out, "</tbody></table>");
		tell_rest(out, r, of);
	}
	html_print(out, "</div>\n");
}

/* ---- lists ----------------------------------------------------------------------------------------------------------
 */

static const json_t *rows_of(const struct report *r, const char *of)
{
	return json_object_get(r->lists, of);
}

static void begin_list(FILE *out, const char *caption, const char *const *heads, size_t n)
{
	html_print(out, "<div class=\"wide\"><table><caption>%s</caption><thead><tr>", caption);
	for (size_t i = 0; i < n; i++)
		html_print(out, i == 0 ? "<th scope=\"col\" class=\"t\">%s</th>" : "<th scope=\"col\">%s</th>", heads[i]);
	html_print(out, "</tr></thead><tbody>");
}

static void end_list(FILE *out, const struct report *r, const char *of)
{
	int64_t more = format_number(r->more, of);
	char buf[REPORT_TIME_MAX];

	html_print(out, "</tbody></table></div>");
	if (more > 0)
		html_print(out, "<p class=\"more\">And %s before these.</p>", report_count(more, buf));
	html_print(out, "\n");
}

static void cell(FILE *out, const char *text)
{
	html_print(out, "<td><bdi>%s</bdi></td>", text);
}

static void member_cell(FILE *out, const json_t *row, const char *key)
{
	char buf[FORMAT_TEXT_MAX];

	cell(out, format_member(row, key, buf));
}

/* What the store keeps as the comment of the revision that a row says took effect; NULL: the row tells of none. */
static const char *comment_of(const struct report *r, const json_t *row)
{
	int64_t id = format_number(row, "revision");
	char began[64], buf[FORMAT_TEXT_MAX];
	const json_t *revision;
	size_t i;

	snprintf(began, sizeof began, "revision %" PRId64 " is in force: ", id);
	if (strncmp(format_member(row, "reason", buf), began, strlen(began)) != 0)
		return NULL;
	json_array_foreach(r->revisions, i, revision) if (format_number(revision, "revision") == id) return json_string_value(
		json_object_get(revision, "comment"));
	return NULL;
}

/* The comment has a column of its own, and there it is whole. */
static void what_and_comment(FILE *out, const struct report *r, const json_t *row)
{
	const char *comment = comment_of(r, row);
	char buf[FORMAT_TEXT_MAX], what[64];

	if (comment != NULL)
		snprintf(what, sizeof what, "revision %" PRId64 " is in force", format_number(row, "revision"));
	cell(out, comment != NULL ? what : format_member(row, "reason", buf));
	cell(out, comment != NULL ? comment : "");
}

static void policy_changes(FILE *out, const struct report *r)
{
	static const char *const heads[] = {"Time, UTC", "By", "Revision", "What", "Comment"};
	const json_t *rows = rows_of(r, "policy"), *row;
	char time[REPORT_TIME_MAX], said[FORMAT_TEXT_MAX], name[300];
	size_t i;

	if (is_empty(out, rows, "Changes of the policy"))
		return;
	begin_list(out, "Changes of the policy", heads, sizeof heads / sizeof *heads);
	json_array_foreach(rows, i, row)
	{
		html_print(out, "<tr><td class=\"t\">%s</td>", row_time(row, time));
		cell(out, author(format_member(row, "user", said), name, sizeof name));
		member_cell(out, row, "revision");
		what_and_comment(out, r, row);
		html_print(out, "</tr>");
	}
	end_list(out, r, "policy");
}

static void admin_actions(FILE *out, const struct report *r, const char *of, const char *caption)
{
	static const char *const heads[] = {"Time, UTC", "By", "Event", "What"};
	const json_t *rows = rows_of(r, of), *row;
	char time[REPORT_TIME_MAX], said[FORMAT_TEXT_MAX], name[300];
	size_t i;

	if (is_empty(out, rows, caption))
		return;
	begin_list(out, caption, heads, sizeof heads / sizeof *heads);
	json_array_foreach(rows, i, row)
	{
		html_print(out, "<tr><td class=\"t\">%s</td>", row_time(row, time));
		cell(out, author(format_member(row, "user", said), name, sizeof name));
		member_cell(out, row, "event");
		member_cell(out, row, "reason");
		html_print(out, "</tr>");
	}
	end_list(out, r, of);
}

static void end_cell(FILE *out, const struct report *r, const json_t *exception)
{
	int64_t left = (format_number(exception, "ends_us") - r->made_us) / DAY_US;
	char buf[FORMAT_TEXT_MAX];

	html_print(out, "<td class=\"t\">%s</td>", format_member(exception, "until", buf));
	if (format_number(exception, "ends_us") <= r->made_us)
		html_print(out, "<td class=\"t past\">has ended</td>");
	else if (left < SOON_DAYS)
		fprintf(out, "<td class=\"t soon\">in %" PRId64 " day%s</td>", left, left == 1 ? "" : "s");
	else
		fprintf(out, "<td class=\"t\">in %" PRId64 " days</td>", left);
}

static void exceptions(FILE *out, const struct report *r)
{
	static const char *const heads[] = {"Until", "Ends", "Rule", "Verdict", "Owner", "Ticket", "Comment"};
	const json_t *row;
	size_t i;

	if (r->exceptions == NULL) {
		html_print(out, "<p class=\"none\">The policy could not be asked.</p>\n");
		return;
	}
	if (is_empty(out, r->exceptions, "Rules with an end"))
		return;
	begin_list(out, "Rules with an end", heads, sizeof heads / sizeof *heads);
	json_array_foreach(r->exceptions, i, row)
	{
		html_print(out, "<tr>");
		end_cell(out, r, row);
		member_cell(out, row, "rule");
		member_cell(out, row, "verdict");
		member_cell(out, row, "owner");
		member_cell(out, row, "ticket");
		member_cell(out, row, "comment");
		html_print(out, "</tr>");
	}
	html_print(out, "</tbody></table></div>\n");
}

/* ---- the page -------------------------------------------------------------------------------------------------------
 */

static void section(FILE *out, const char *title, const char *about)
{
	html_print(out, "<h2>%s</h2><p class=\"say\">%s</p>\n", title, about);
}

static void who_and_where(FILE *out, const struct report *r)
{
	section(out, "Who reached what", "Sessions count when they were granted, bytes when they ended.");
	busiest(out, r, "users", "Users", "User", true);
	busiest(out, r, "destinations", "Destinations", "Name or address", false);
	busiest(out, r, "rules", "Rules", "Rule", true);
	busiest(out, r, "clients", "Client addresses", "Client", true);
	html_print(out, "<div class=\"pair\">");
	counted(out, r, "countries", "Countries of destinations", "Country", true);
	counted(out, r, "methods", "Ways to log in", "Method", true);
	html_print(out, "</div>\n");
}

/* Who had to wait after guesses, and when that was over. */
static void throttles(FILE *out, const struct report *r)
{
	static const char *const heads[] = {"Time, UTC", "User", "From", "What"};
	const json_t *rows = rows_of(r, "throttle"), *row;
	char time[REPORT_TIME_MAX];
	size_t i;

	if (is_empty(out, rows, "Slowed down after guesses"))
		return;
	begin_list(out, "Slowed down after guesses", heads, sizeof heads / sizeof *heads);
	json_array_foreach(rows, i, row)
	{
		html_print(out, "<tr><td class=\"t\">%s</td>", row_time(row, time));
		member_cell(out, row, "user");
		member_cell(out, row, "client");
		member_cell(out, row, "reason");
		html_print(out, "</tr>");
	}
	end_list(out, r, "throttle");
}

static void refusals(FILE *out, const struct report *r)
{
	section(out, "What was refused", "Requests that ended without a connection, with the reason that the audit keeps.");
	html_print(out, "<div class=\"pair\"><div>");
	counted(out, r, "denied-reasons", "Denied, by reason", "Reason", false);
	counted(out, r, "denied-destinations", "Denied, by destination", "Name or address", false);
	html_print(out, "</div><div>");
	counted(out, r, "denied-rules", "Denied, by rule", "Rule", false);
	counted(out, r, "denied-users", "Denied, by user", "User", false);
	html_print(out, "</div></div>\n");
	section(out, "Log-ins that failed", "Wrong passwords, log-ins that could not be judged, and guesses that were slowed down.");
	html_print(out, "<div class=\"pair\"><div>");
	counted(out, r, "failed-reasons", "Failed, by reason", "Reason", false);
	counted(out, r, "failed-clients", "Failed, by client", "Client", false);
	html_print(out, "</div><div>");
	counted(out, r, "failed-users", "Failed, by user", "User as given", false);
	html_print(out, "</div></div>\n");
	throttles(out, r);
}

static void footer(FILE *out, const struct report *r)
{
	char events[REPORT_TIME_MAX], flows[REPORT_TIME_MAX], duration[FORMAT_TEXT_MAX];

	html_print(out, "</main>\n<footer><h2>About this report</h2>");
	html_print(out,
		   "<p>Made by gatewayctl " PACKAGE_VERSION " from %s events, among them %s flows of UDP; sessions lasted %s altogether. "
		   "All times are UTC. A flood of one and the same refusal is one row that counts it, and counts here as many times. "
		   "Bytes of a session that goes on are not told yet.</p>",
		   report_count(total(r, "events"), events), report_count(total(r, "flows"), flows),
		   format_duration(total(r, "duration_us"), duration));
	html_print(out, "<p>Names, users and comments are shown as they were recorded; a byte that could mislead the reader is written "
			"as \\xNN. This page holds no script and loads nothing. It is no proof by itself: the audit is, with its "
			"key.</p></footer>\n</body>\n</html>\n");
}

static const char *step_text(int64_t step_us)
{
	static const struct {
		int64_t hours;
		const char *text;
	} steps[] = {{1, "Each bar is an hour, in UTC."},	{2, "Each bar is two hours, in UTC."},
		     {6, "Each bar is six hours, in UTC."},	{24, "Each bar is a day, in UTC."},
		     {24 * 7, "Each bar is seven days, in UTC."}, {24 * 28, "Each bar is 28 days, in UTC."}};

	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		if (step_us == steps[i].hours * (DAY_US / 24))
			return steps[i].text;
	return "All bars are equally long, in UTC.";
}

void report_page(FILE *out, const struct report *r)
{
	head(out);
	title(out, r);
	verdict(out, r);
	tiles(out, r);
	section(out, "Activity", step_text(r->step_us));
	report_chart_sessions(out, r);
	report_chart_bytes(out, r);
	who_and_where(out, r);
	refusals(out, r);
	section(out, "Policy", "Each revision that took effect or was refused, and what each start of the gateway found in force.");
	policy_changes(out, r);
	section(out, "Exceptions", "Rules of the policy in force that end by themselves, the next first.");
	exceptions(out, r);
	section(out, "Administration", "What administrators did, and when the gateway ran.");
	admin_actions(out, r, "admin", "Actions of administrators");
	admin_actions(out, r, "runs", "Starts and stops");
	footer(out, r);
}
