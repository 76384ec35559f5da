/* Bars over time, in SVG that needs no script: every bar says its numbers when it is pointed at. */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "admin/format.h"
#include "admin/html.h"
#include "admin/report.h"

#define WIDTH 960.0
#define LEFT 64.0
#define RIGHT 4.0
#define TOP 10.0
#define BOTTOM 26.0
#define HEIGHT 240.0
#define TICKS 4
#define LABEL 80.0 /* what the longest name of a step takes on the axis of time */

enum { POINT_SESSIONS, POINT_DENIED, POINT_FAILED, POINT_UP, POINT_DOWN };

static double value_of(const json_t *point, size_t which)
{
	return json_number_value(json_array_get(point, which));
}

static const json_t *points_of(const struct report *r)
{
	return json_object_get(r->series, "points");
}

/* The next round number: 1, 2 or 5 times a power of ten. */
static double round_up(double value)
{
	double unit = 1;

	while (unit * 10 <= value)
		unit *= 10;
	return value <= unit ? unit : value <= 2 * unit ? 2 * unit : value <= 5 * unit ? 5 * unit : 10 * unit;
}

/* The next power of two, so that its multiples are round in units of 1024. */
static double round_up_bytes(double value)
{
	double unit = 1;

	while (unit < value)
		unit *= 2;
	return unit;
}

/* "512 MiB", "1.5 GiB" */
static const char *short_bytes(double bytes, char buf[FORMAT_TEXT_MAX])
{
	char *dot;

	format_bytes((uint64_t)bytes, buf);
	dot = strstr(buf, ".0 ");
	if (dot != NULL)
		memmove(dot, dot + 2, strlen(dot + 2) + 1);
	return buf;
}

/* ---- axes ----------------------------------------------------------------------------------------------------------
 */

static double bar_width(const struct report *r)
{
	size_t n = json_array_size(points_of(r));

	return (WIDTH - LEFT - RIGHT) / (double)(n == 0 ? 1 : n);
}

static int64_t begin_of(const struct report *r, size_t at)
{
	return format_number(r->series, "begin_us") + (int64_t)at * r->step_us;
}

/* A step's name: its day, or its hour where steps are shorter. */
static const char *step_name(const struct report *r, size_t at, bool brief, char *buf, size_t size)
{
	time_t seconds = (time_t)(begin_of(r, at) / 1000000);
	bool hours = r->step_us < 86400 * INT64_C(1000000);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(buf, size, brief ? (hours ? "%d %b %H:%M" : "%d %b") : (hours ? "%Y-%m-%d %H:%M" : "%a %Y-%m-%d"), &tm);
	return buf;
}

static void time_axis(FILE *out, const struct report *r, double y)
{
	size_t n = json_array_size(points_of(r)), every = (n + 9) / 10;
	double width = bar_width(r), free_from = 0;
	char text[64];

	for (size_t i = 0; i < n; i += every == 0 ? 1 : every) {
		double middle = LEFT + ((double)i + .5) * width;
		double x = fmin(middle, WIDTH - LABEL / 2);

		/* The last is moved to where it is not cut off; there it may be too near to the one before. */
		if (x - LABEL / 2 < free_from)
			continue;
		fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>", x, y,
			step_name(r, i, true, text, sizeof text));
		free_from = x + LABEL / 2;
	}
}

static void grid_line(FILE *out, double y, const char *class, const char *label)
{
	fprintf(out, "<line class=\"%s\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>", class, LEFT, WIDTH - RIGHT, y, y);
	html_print(out, "<text x=\"56\" text-anchor=\"end\" ");
	fprintf(out, "y=\"%.1f\">", y + 4);
	html_print(out, "%s</text>", label);
}

static void rect(FILE *out, const char *class, double x, double width, double top, double bottom)
{
	double gap = width > 6 ? 2 : width > 3 ? 1 : 0;

	if (bottom - top >= .05)
		fprintf(out, "<rect class=\"%s\" x=\"%.2f\" width=\"%.2f\" y=\"%.2f\" height=\"%.2f\"/>", class, x + gap / 2,
			width - gap, top, bottom - top);
}

static void begin_svg(FILE *out, const char *id, const char *title, const char *description)
{
	fprintf(out, "<svg class=\"chart\" role=\"img\" viewBox=\"0 0 %.0f %.0f\" aria-labelledby=\"%s-t %s-d\">", WIDTH, HEIGHT,
		id, id);
	fprintf(out, "<title id=\"%s-t\">", id);
	html_print(out, "%s</title>", title);
	fprintf(out, "<desc id=\"%s-d\">", id);
	html_print(out, "%s</desc>", description);
}

static void begin_point(FILE *out, const struct report *r, size_t at)
{
	double x = LEFT + (double)at * bar_width(r);

	fprintf(out, "<g class=\"at\"><rect class=\"hit\" x=\"%.2f\" width=\"%.2f\" y=\"%.0f\" height=\"%.0f\"/>", x, bar_width(r),
		TOP, HEIGHT - TOP - BOTTOM);
}

/* ---- sessions -------------------------------------------------------------------------------------------------------
 */

static size_t busiest(const struct report *r, size_t a, size_t b, size_t c, double *most)
{
	const json_t *point;
	size_t i, at = 0;

	*most = 0;
	json_array_foreach(points_of(r), i, point)
	{
		double sum = value_of(point, a) + (b == a ? 0 : value_of(point, b)) + (c == b ? 0 : value_of(point, c));

		if (sum > *most) {
			*most = sum;
			at = i;
		}
	}
	return at;
}

static void session_bar(FILE *out, const struct report *r, size_t at, const json_t *point, double scale)
{
	double sessions = value_of(point, POINT_SESSIONS), refused = value_of(point, POINT_DENIED) + value_of(point, POINT_FAILED);
	double base = HEIGHT - BOTTOM, x = LEFT + (double)at * bar_width(r), knee = base - sessions * scale;
	char name[64], a[REPORT_TIME_MAX], b[REPORT_TIME_MAX], c[REPORT_TIME_MAX];

	begin_point(out, r, at);
	rect(out, "main", x, bar_width(r), knee, base);
	rect(out, "badly", x, bar_width(r), knee - refused * scale, knee);
	html_print(out, "<title>%s: %s sessions, %s denied, %s failed log-ins</title></g>",
		   step_name(r, at, false, name, sizeof name), report_count((int64_t)sessions, a),
		   report_count((int64_t)value_of(point, POINT_DENIED), b), report_count((int64_t)value_of(point, POINT_FAILED), c));
}

void report_chart_sessions(FILE *out, const struct report *r)
{
	double most, span = HEIGHT - TOP - BOTTOM;
	size_t peak = busiest(r, POINT_SESSIONS, POINT_DENIED, POINT_FAILED, &most), i;
	double step = most < TICKS ? 1 : round_up(most / TICKS), top = most < TICKS ? TICKS : step * ceil(most / step);
	char description[256], count[REPORT_TIME_MAX], name[64];
	const json_t *point;

	snprintf(description, sizeof description, "Bars over time. The busiest is %s, with %s sessions and refusals together.",
		 step_name(r, peak, false, name, sizeof name), report_count((int64_t)most, count));
	html_print(out, "<figure><figcaption><b>Sessions</b><span><i class=\"key-main\"></i>granted</span>"
			"<span><i class=\"key-bad\"></i>denied, and failed log-ins</span></figcaption>");
	begin_svg(out, "sessions", "Sessions and refusals over time", description);
	for (double v = step; v <= top + step / 2; v += step)
		grid_line(out, HEIGHT - BOTTOM - span * v / top, "grid", report_count((int64_t)v, count));
	json_array_foreach(points_of(r), i, point) session_bar(out, r, i, point, span / top);
	grid_line(out, HEIGHT - BOTTOM, "axis", "0");
	time_axis(out, r, HEIGHT - 6);
	html_print(out, "</svg></figure>\n");
}

/* ---- bytes ----------------------------------------------------------------------------------------------------------
 */

static void bytes_bar(FILE *out, const struct report *r, size_t at, const json_t *point, double base, double scale)
{
	double up = value_of(point, POINT_UP), down = value_of(point, POINT_DOWN), x = LEFT + (double)at * bar_width(r);
	char name[64], a[FORMAT_TEXT_MAX], b[FORMAT_TEXT_MAX];

	begin_point(out, r, at);
	rect(out, "main", x, bar_width(r), base - down * scale, base);
	rect(out, "pale", x, bar_width(r), base, base + up * scale);
	html_print(out, "<title>%s: %s received, %s sent</title></g>", step_name(r, at, false, name, sizeof name),
		   format_bytes((uint64_t)down, b), format_bytes((uint64_t)up, a));
}

/* What came back stands above the line, what was sent below it, on one scale. */
void report_chart_bytes(FILE *out, const struct report *r)
{
	double down, up, span = HEIGHT - TOP - BOTTOM;
	size_t peak = busiest(r, POINT_DOWN, POINT_DOWN, POINT_DOWN, &down), i;
	char description[256], label[FORMAT_TEXT_MAX], name[64];
	const json_t *point;

	busiest(r, POINT_UP, POINT_UP, POINT_UP, &up);
	double step = round_up_bytes((down + up) / TICKS);
	double above = step * ceil(down / step), below = step * ceil(up / step);

	if (above + below <= 0)
		above = step;
	double scale = span / (above + below), base = TOP + above * scale;

	snprintf(description, sizeof description, "Bars over time, received above the line, sent below. Most came on %s: %s.",
		 step_name(r, peak, false, name, sizeof name), format_bytes((uint64_t)down, label));
	html_print(out, "<figure><figcaption><b>Bytes</b><span><i class=\"key-main\"></i>received by clients</span>"
			"<span><i class=\"key-pale\"></i>sent by clients</span></figcaption>");
	begin_svg(out, "bytes", "Bytes over time", description);
	for (double v = step; v <= above + step / 2; v += step)
		grid_line(out, base - v * scale, "grid", short_bytes(v, label));
	for (double v = step; v <= below + step / 2; v += step)
		grid_line(out, base + v * scale, "grid", short_bytes(v, label));
	json_array_foreach(points_of(r), i, point) bytes_bar(out, r, i, point, base, scale);
	grid_line(out, base, "axis", "0");
	time_axis(out, r, HEIGHT - 6);
	html_print(out, "</svg></figure>\n");
}
