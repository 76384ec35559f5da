#include "config.h"

#include "gatewayd/conf.h"

#include <confuse.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/auth.h"
#include "common/name.h"

/* ---- the options: one row each ------------------------------------------------------------------------------- */

enum kind { NUMBER, TEXT, PATH, FLAG, LEVEL, CHOICE, ENDPOINTS };

struct option {
	const char *name;
	enum kind kind;
	size_t offset; /* into struct config */
	size_t size;   /* of a TEXT or PATH field */
	long min, max; /* of a NUMBER */
	long number;   /* default of a NUMBER or FLAG */
	const char *text; /* default of a TEXT, PATH, LEVEL or CHOICE */
	const char *other; /* what a CHOICE may be besides: true */
};

#define OPTION(option_name, option_kind, field, ...)                                                                   \
	{.name = (option_name), .kind = (option_kind), .offset = offsetof(struct config, field),                       \
	 .size = sizeof(((struct config *)0)->field), __VA_ARGS__}

/* The default of a listener's option that has everybody's value then. */
#define UNSET LONG_MIN

#define DAY_MS (24L * 60 * 60 * 1000)

static const struct option options[] = {
	OPTION("workers", NUMBER, workers, .min = 1, .max = CONFIG_WORKERS_MAX, .number = 2),
	OPTION("cpu-local", FLAG, cpu_local, .number = 0),
	OPTION("max-sessions", NUMBER, max_sessions, .min = 0, .max = 4000000, .number = 0),
	OPTION("max-sessions-per-client", NUMBER, limits.per_client, .min = 0, .max = 10000000, .number = 0),
	OPTION("max-sessions-per-user", NUMBER, limits.per_user, .min = 0, .max = 10000000, .number = 0),
	OPTION("max-rate-per-client", NUMBER, limits.rate_per_client, .min = 0, .max = 10000000, .number = 0),
	OPTION("max-rate-per-user", NUMBER, limits.rate_per_user, .min = 0, .max = 10000000, .number = 0),
	OPTION("user", TEXT, user, .text = "gatewayd"),
	OPTION("pam-user", TEXT, pam_user, .text = "root"),
	OPTION("state-dir", PATH, state_dir, .text = "/var/lib/gatewayd"),
	OPTION("control-socket", PATH, control_socket, .text = "/run/gatewayd/control.sock"),
	OPTION("control-group", TEXT, control_group, .text = ""),
	OPTION("viewer-group", TEXT, viewer_group, .text = ""),
	OPTION("auditor-group", TEXT, auditor_group, .text = ""),
	OPTION("operator-group", TEXT, operator_group, .text = ""),
	OPTION("policy-file", PATH, policy_file, .text = "/etc/gatewayd/gateway.policy"),
	OPTION("policy-approval", FLAG, policy_approval, .number = 0),
	OPTION("policy-approval-within", NUMBER, policy_approval_within_ms, .min = 1000, .max = 49 * DAY_MS, .number = 7 * DAY_MS),
	OPTION("geoip-database", PATH, geoip_database, .text = ""),
	OPTION("asn-database", PATH, asn_database, .text = ""),
	OPTION("database-check-interval", NUMBER, database_check_ms, .min = 0, .max = DAY_MS, .number = 60000),
	OPTION("resolver", ENDPOINTS, resolvers, .text = NULL),
	OPTION("resolver-timeout", NUMBER, resolver_timeout_ms, .min = 100, .max = 60000, .number = 2000),
	OPTION("resolver-tries", NUMBER, resolver_tries, .min = 1, .max = 10, .number = 3),
	OPTION("resolver-cache", NUMBER, resolver_cache, .min = 0, .max = 1 << 18, .number = 4096),
	OPTION("resolver-cache-longest", NUMBER, resolver_cache_longest_ms, .min = 1000, .max = DAY_MS, .number = 300000),
	OPTION("search-domain", TEXT, search_domain, .text = ""),
	OPTION("pam-config-dir", PATH, pam_config_dir, .text = ""),
	OPTION("pam-groups-file", PATH, pam_groups_file, .text = ""),
	OPTION("pam-processes", NUMBER, pam_processes, .min = 1, .max = 256, .number = 8),
	OPTION("pam-processes-min", NUMBER, pam_processes_min, .min = 0, .max = 256, .number = 0),
	OPTION("pam-idle-timeout", NUMBER, pam_idle_timeout_ms, .min = 100, .max = 86400000, .number = 60000),
	OPTION("pam-queue", NUMBER, pam_queue, .min = 1, .max = 100000, .number = 8192),
	OPTION("pam-timeout", NUMBER, pam_timeout_ms, .min = 1000, .max = 600000, .number = 60000),
	OPTION("gssapi-keytab", PATH, gssapi_keytab, .text = ""),
	OPTION("gssapi-krb5-conf", PATH, gssapi_krb5_conf, .text = "/etc/krb5.conf"),
	OPTION("gssapi-timeout", NUMBER, gssapi_timeout_ms, .min = 1000, .max = 600000, .number = 10000),
	OPTION("gssapi-contexts", NUMBER, gssapi_contexts, .min = 4, .max = 65536, .number = 1024),
	OPTION("remember-logins", NUMBER, remember_logins_ms, .min = 0, .max = 86400000, .number = 60000),
	OPTION("throttle-user-failures", NUMBER, throttle_user_failures, .min = 0, .max = 1000000, .number = 5),
	OPTION("throttle-client-failures", NUMBER, throttle_client_failures, .min = 0, .max = 1000000, .number = 20),
	OPTION("throttle-first-wait", NUMBER, throttle_first_wait_ms, .min = 100, .max = 3600000, .number = 1000),
	OPTION("throttle-longest-wait", NUMBER, throttle_longest_wait_ms, .min = 100, .max = 86400000, .number = 900000),
	OPTION("throttle-prefix-ipv4", NUMBER, throttle_prefix_v4, .min = 8, .max = 32, .number = 32),
	OPTION("throttle-prefix-ipv6", NUMBER, throttle_prefix_v6, .min = 16, .max = 128, .number = 64),
	OPTION("fold-user-case", FLAG, fold_user_case, .number = 0),
	OPTION("handshake-timeout", NUMBER, handshake_timeout_ms, .min = 100, .max = 600000, .number = 30000),
	OPTION("connect-timeout", NUMBER, connect_timeout_ms, .min = 100, .max = 600000, .number = 20000),
	OPTION("bind-timeout", NUMBER, bind_timeout_ms, .min = 100, .max = 3600000, .number = 120000),
	OPTION("udp-idle-timeout", NUMBER, udp_idle_timeout_ms, .min = 1000, .max = 86400000, .number = 60000),
	OPTION("udp-offload", FLAG, udp_offload, .number = 1),
	OPTION("max-session-age", NUMBER, max_session_age_ms, .min = 0, .max = 49 * DAY_MS, .number = 0),
	OPTION("idle-timeout", NUMBER, idle_timeout_ms, .min = 100, .max = 30 * DAY_MS, .number = 2 * 3600000L),
	OPTION("audit-timeout", NUMBER, audit_timeout_ms, .min = 100, .max = 600000, .number = 10000),
	OPTION("commit-interval", NUMBER, commit_interval_us, .min = 0, .max = 1000000, .number = 2000),
	OPTION("audit-durability", CHOICE, audit_relaxed, .text = "full", .other = "relaxed"),
	OPTION("on-audit-failure", CHOICE, audit_allow, .text = "refuse", .other = "allow"),
	OPTION("audit-reserve-megabytes", NUMBER, reserve_mb, .min = 0, .max = 1 << 20, .number = 16),
	OPTION("audit-looks", FLAG, audit_looks, .number = 1),
	OPTION("audit-fold-after", NUMBER, fold_after, .min = 0, .max = 1000000, .number = 20),
	OPTION("audit-anchor-interval", NUMBER, anchor_interval_s, .min = 0, .max = 7 * 24 * 3600L, .number = 3600),
	OPTION("audit-anchor-file", PATH, anchor_file, .text = ""),
	OPTION("policy-store-warn-megabytes", NUMBER, policy_store_warn_mb, .min = 0, .max = 1 << 20, .number = 1024),
	OPTION("audit-segment-megabytes", NUMBER, segment_mb, .min = 1, .max = 1 << 20, .number = 128),
	OPTION("checkpoint-interval", NUMBER, checkpoint_interval_ms, .min = 1000, .max = DAY_MS, .number = 15 * 60000L),
	OPTION("checkpoint-megabytes", NUMBER, checkpoint_mb, .min = 1, .max = 1 << 20, .number = 256),
	OPTION("compile-timeout", NUMBER, compile_timeout_ms, .min = 1000, .max = 3600000, .number = 120000),
	OPTION("worker-timeout", NUMBER, worker_timeout_ms, .min = 1000, .max = 3600000, .number = 30000),
	OPTION("process-timeout", NUMBER, process_timeout_ms, .min = 1000, .max = 3600000, .number = 60000),
	OPTION("recorder-timeout", NUMBER, recorder_timeout_ms, .min = 1000, .max = 3600000, .number = 300000),
	OPTION("live-sessions", CHOICE, live_keep, .text = "decide", .other = "keep"),
	OPTION("sandbox", FLAG, sandbox, .number = 1),
	OPTION("log-level", LEVEL, log_level, .text = "info"),
};

#define NOPTIONS (sizeof options / sizeof *options)

/* ---- errors: all of them in one run, each with its line -------------------------------------------------------- */

struct reading {
	char *errors; /* malloc'd lines, or NULL */
	unsigned count;
	bool seen[NOPTIONS];
	struct config *config;
};

#define ERRORS_MAX 50

/* libconfuse hands no context to its callbacks. */
static struct reading *reading;

__attribute__((format(printf, 2, 0))) static void add_error(cfg_t *cfg, const char *format, va_list ap)
{
	char message[512], line[4096 + 600], *grown;
	size_t old = reading->errors == NULL ? 0 : strlen(reading->errors), len;

	vsnprintf(message, sizeof message, format, ap);
	if (cfg != NULL)
		snprintf(line, sizeof line, "%s:%d: %s", cfg->filename, cfg->line, message);
	else
		snprintf(line, sizeof line, "%s: %s", reading->config->file, message);
	len = strlen(line);
	/* libconfuse validates the last value of a list once more at the list's end. */
	if (old >= len && strcmp(reading->errors + old - len, line) == 0)
		return;
	if (++reading->count > ERRORS_MAX)
		return;
	grown = realloc(reading->errors, old + len + 2);
	if (grown == NULL)
		return;
	reading->errors = grown;
	snprintf(grown + old, len + 2, "%s%s", old == 0 ? "" : "\n", line);
}

static void wrong(cfg_t *cfg, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void wrong(cfg_t *cfg, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	add_error(cfg, format, ap);
	va_end(ap);
}

/* ---- checks while reading, where the line is known ------------------------------------------------------------- */

static const struct option *option_of(const cfg_opt_t *opt)
{
	for (size_t i = 0; i < NOPTIONS; i++)
		if (strcmp(options[i].name, opt->name) == 0)
			return &options[i];
	return NULL;
}

static void check_text(cfg_t *cfg, const struct option *o, const char *value)
{
	enum log_level level;

	if (strlen(value) >= o->size && o->kind != LEVEL && o->kind != CHOICE)
		wrong(cfg, "%s is longer than %zu bytes", o->name, o->size - 1);
	else if (o->kind == PATH && value[0] != '/' && value[0] != '\0')
		wrong(cfg, "%s must be an absolute path, not '%s'", o->name, value);
	else if (o->kind == CHOICE && strcmp(value, o->text) != 0 && strcmp(value, o->other) != 0)
		wrong(cfg, "%s is %s or %s, not '%s'", o->name, o->text, o->other, value);
	else if (o->kind == LEVEL && !log_level_parse(value, &level))
		wrong(cfg, "%s is error, warning, info or debug, not '%s'", o->name, value);
}

/* After each value of a top-level option. */
static int validate_option(cfg_t *cfg, cfg_opt_t *opt)
{
	const struct option *o = option_of(opt);
	unsigned last = cfg_opt_size(opt) - 1;

	if (o->kind == ENDPOINTS) {
		struct endpoint ep;
		const char *value = cfg_opt_getnstr(opt, last);

		if (!endpoint_parse(value, &ep) || ep.port == 0)
			wrong(cfg, "%s is ADDRESS:PORT or [ADDRESS]:PORT, not '%s'", o->name, value);
		return 0;
	}
	if (reading->seen[o - options])
		wrong(cfg, "%s is given twice", o->name);
	reading->seen[o - options] = true;
	if (o->kind == NUMBER) {
		long value = cfg_opt_getnint(opt, 0);

		if (value < o->min || value > o->max)
			wrong(cfg, "%s is from %ld to %ld, not %ld", o->name, o->min, o->max, value);
	} else if (o->kind != FLAG) {
		check_text(cfg, o, cfg_opt_getnstr(opt, 0));
	}
	return 0;
}

static int validate_address(cfg_t *cfg, cfg_opt_t *opt)
{
	struct endpoint ep;
	const char *value = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);

	if (!endpoint_parse(value, &ep) || ep.port == 0)
		wrong(cfg, "address is ADDRESS:PORT or [ADDRESS]:PORT, not '%s'", value);
	return 0;
}

static const struct {
	const char *name;
	uint8_t code; /* RFC 1928 section 3 */
} methods[] = {{"none", 0x00}, {"gssapi", 0x01}, {"password", 0x02}};

static int method_code(const char *name)
{
	for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
		if (strcmp(methods[i].name, name) == 0)
			return methods[i].code;
	return -1;
}

static int validate_method(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *value = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);

	if (method_code(value) < 0)
		wrong(cfg, "methods are none, password and gssapi, not '%s'", value);
	return 0;
}

static int validate_version(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *value = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);

	if (strcmp(value, "4") != 0 && strcmp(value, "5") != 0)
		wrong(cfg, "versions are 4 and 5, not '%s'", value);
	return 0;
}

static const char *const commands[] = {[1] = "connect", [2] = "bind", [3] = "udp"};

static unsigned command_bit(const char *name)
{
	for (unsigned i = 1; i < sizeof commands / sizeof *commands; i++)
		if (strcmp(commands[i], name) == 0)
			return 1u << i;
	return 0;
}

static int validate_command(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *value = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);

	if (command_bit(value) == 0)
		wrong(cfg, "commands are connect, bind and udp, not '%s'", value);
	return 0;
}

static int validate_udp_replies(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *value = cfg_opt_getnstr(opt, 0);

	if (strcmp(value, "contacted") != 0 && strcmp(value, "any") != 0)
		wrong(cfg, "udp-replies is contacted or any, not '%s'", value);
	return 0;
}

static int validate_client(cfg_t *cfg, cfg_opt_t *opt)
{
	struct prefix p;
	bool host_bits;
	const char *value = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);

	if (!prefix_parse(value, &p, &host_bits))
		wrong(cfg, host_bits ? "clients: '%s' has host bits set" : "clients are prefixes like 10.0.0.0/8, not '%s'", value);
	return 0;
}

static const char *const protections[] = {"none", "integrity", "confidentiality"};

static int protection_level(const char *name)
{
	for (int i = 0; i < 3; i++)
		if (strcmp(protections[i], name) == 0)
			return i;
	return -1;
}

static int validate_protection(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *value = cfg_opt_getnstr(opt, 0);

	if (protection_level(value) < 0)
		wrong(cfg, "gssapi-protection is none, integrity or confidentiality, not '%s'", value);
	return 0;
}

static int validate_service(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *value = cfg_opt_getnstr(opt, 0);

	if (!auth_service_valid(value))
		wrong(cfg, "pam-service is the name of a PAM service (1 to 63 letters, digits, '-', '_', '.'), not '%s'", value);
	return 0;
}

/* ---- values into the snapshot ---------------------------------------------------------------------------------- */

static bool is_loopback(const struct addr *a)
{
	static const struct addr v6_loopback = {.family = ADDR_V6, .bytes = {[15] = 1}};

	return (a->family == ADDR_V4 && a->bytes[0] == 127) || addr_equal(a, &v6_loopback);
}

/* A listener that lends the network to strangers is an error unless the operator says so. */
static void check_open_proxy(cfg_t *sec, const struct config_listener *l)
{
	bool none = false, outside = false, restricted = l->nclients > 0;

	for (size_t i = 0; i < l->nmethods; i++)
		none |= l->methods[i] == 0x00;
	for (size_t i = 0; i < l->naddresses; i++)
		outside |= !is_loopback(&l->addresses[i].addr);
	/* To name everybody is to restrict nobody. */
	for (size_t i = 0; l->clients != NULL && i < l->nclients; i++)
		restricted &= l->clients[i].bits > 0;
	if (none && outside && !restricted && !l->open_proxy)
		wrong(sec,
		      "listener '%s' serves anybody who can reach it without a log-in: name its clients, or say open-proxy = true",
		      l->name);
}

static void take_addresses(struct config *c, cfg_t *sec, struct config_listener *l)
{
	size_t n = cfg_size(sec, "address");

	if (n == 0 || n > CONFIG_ADDRESSES_MAX)
		wrong(sec, "listener '%s' needs 1 to %d addresses", l->name, CONFIG_ADDRESSES_MAX);
	for (size_t i = 0; i < n && i < CONFIG_ADDRESSES_MAX; i++) {
		struct endpoint *ep = &l->addresses[l->naddresses++];

		if (!endpoint_parse(cfg_getnstr(sec, "address", (unsigned)i), ep))
			continue;
		for (struct config_listener *other = c->listeners; other <= l; other++)
			for (size_t k = 0; k < other->naddresses; k++)
				if (&other->addresses[k] != ep && other->addresses[k].port == ep->port &&
				    addr_equal(&other->addresses[k].addr, &ep->addr))
					wrong(sec, "address %s is listened on twice", cfg_getnstr(sec, "address", (unsigned)i));
	}
}

static unsigned take_limit(cfg_t *sec, const char *name)
{
	long value = cfg_getint(sec, name);

	if (value < 0 || value > 10000000)
		wrong(sec, "%s is from 0 (no limit) to 10000000, not %ld", name, value);
	return (unsigned)value;
}

static void take_limits(cfg_t *sec, struct limit_set *l)
{
	l->sessions = take_limit(sec, "max-sessions");
	l->per_client = take_limit(sec, "max-sessions-per-client");
	l->per_user = take_limit(sec, "max-sessions-per-user");
	l->rate = take_limit(sec, "max-rate");
	l->rate_per_client = take_limit(sec, "max-rate-per-client");
	l->rate_per_user = take_limit(sec, "max-rate-per-user");
}

/* A time that a listener may set for itself; without one it has everybody's. */
static unsigned take_time(cfg_t *sec, const char *name, unsigned of_all)
{
	const struct option *o = options;
	long value = cfg_getint(sec, name);

	while (strcmp(o->name, name) != 0)
		o++;
	if (value == UNSET)
		return of_all;
	if (value < o->min || value > o->max)
		wrong(sec, "%s is from %ld to %ld, not %ld", name, o->min, o->max, value);
	return (unsigned)value;
}

static void take_services(cfg_t *sec, struct config_listener *l)
{
	for (unsigned i = 0; i < cfg_size(sec, "versions"); i++) {
		l->socks4 |= strcmp(cfg_getnstr(sec, "versions", i), "4") == 0;
		l->socks5 |= strcmp(cfg_getnstr(sec, "versions", i), "5") == 0;
	}
	for (unsigned i = 0; i < cfg_size(sec, "commands"); i++)
		l->commands |= command_bit(cfg_getnstr(sec, "commands", i));
	if (!l->socks4 && !l->socks5)
		wrong(sec, "listener '%s' serves no version", l->name);
	if (l->commands == 0)
		wrong(sec, "listener '%s' serves no command", l->name);
	if (l->socks4 && memchr(l->methods, 0x00, l->nmethods) == NULL)
		wrong(sec, "listener '%s' serves SOCKS4, which knows no log-in: add the method none, or leave version 4 out",
		      l->name);
}

static void take_listener(struct config *c, cfg_t *sec)
{
	struct config_listener *l = &c->listeners[c->nlisteners];
	const char *title = cfg_title(sec);

	if (strlen(title) >= sizeof l->name || title[0] == '\0') {
		wrong(sec, "a listener's name has 1 to %zu bytes", sizeof l->name - 1);
		return;
	}
	for (size_t i = 0; i < c->nlisteners; i++)
		if (strcmp(c->listeners[i].name, title) == 0)
			wrong(sec, "listener '%s' is given twice", title);
	snprintf(l->name, sizeof l->name, "%s", title);
	take_addresses(c, sec, l);
	for (unsigned i = 0; i < cfg_size(sec, "methods"); i++) {
		int code = method_code(cfg_getnstr(sec, "methods", i));

		if (code < 0)
			continue;
		if (memchr(l->methods, code, l->nmethods) != NULL)
			wrong(sec, "listener '%s' names a method twice", title);
		else
			l->methods[l->nmethods++] = (uint8_t)code;
	}
	if (cfg_size(sec, "methods") == 0)
		wrong(sec, "listener '%s' offers no method", title);
	take_services(sec, l);
	snprintf(l->pam_service, sizeof l->pam_service, "%s", cfg_getstr(sec, "pam-service"));
	int level = protection_level(cfg_getstr(sec, "gssapi-protection"));

	l->gssapi_protection = level < 0 ? 0 : (unsigned)level;
	l->gssapi_nec = cfg_getbool(sec, "gssapi-nec");
	if (memchr(l->methods, 0x01, l->nmethods) != NULL && c->gssapi_keytab[0] == '\0')
		wrong(sec, "listener '%s' offers gssapi: set gssapi-keytab", title);
	l->nclients = cfg_size(sec, "clients");
	l->clients = calloc(l->nclients + 1, sizeof *l->clients);
	for (unsigned i = 0; l->clients != NULL && i < l->nclients; i++) {
		bool host_bits;

		prefix_parse(cfg_getnstr(sec, "clients", i), &l->clients[i], &host_bits);
	}
	take_limits(sec, &l->limits);
	l->handshake_timeout_ms = take_time(sec, "handshake-timeout", c->handshake_timeout_ms);
	l->idle_timeout_ms = take_time(sec, "idle-timeout", c->idle_timeout_ms);
	l->max_session_age_ms = take_time(sec, "max-session-age", c->max_session_age_ms);
	l->udp_replies_any = strcmp(cfg_getstr(sec, "udp-replies"), "any") == 0;
	l->open_proxy = cfg_getbool(sec, "open-proxy");
	check_open_proxy(sec, l);
	c->nlisteners++;
}

static void take_option(struct config *c, cfg_t *cfg, const struct option *o)
{
	char *field = (char *)c + o->offset;

	switch (o->kind) {
	case NUMBER:
		*(unsigned *)(void *)field = (unsigned)cfg_getint(cfg, o->name);
		break;
	case FLAG:
		*(bool *)field = cfg_getbool(cfg, o->name);
		break;
	case TEXT:
	case PATH:
		snprintf(field, o->size, "%s", cfg_getstr(cfg, o->name));
		break;
	case CHOICE:
		*(bool *)field = strcmp(cfg_getstr(cfg, o->name), o->other) == 0;
		break;
	case LEVEL:
		log_level_parse(cfg_getstr(cfg, o->name), (enum log_level *)(void *)field);
		break;
	case ENDPOINTS:
		if (cfg_size(cfg, o->name) > CONFIG_RESOLVERS_MAX)
			wrong(NULL, "at most %d values of %s", CONFIG_RESOLVERS_MAX, o->name);
		for (unsigned i = 0; i < cfg_size(cfg, o->name) && i < CONFIG_RESOLVERS_MAX; i++)
			if (endpoint_parse(cfg_getnstr(cfg, o->name, i), &c->resolvers[c->nresolvers]))
				c->nresolvers++;
		break;
	}
}

static void take_all(struct config *c, cfg_t *cfg)
{
	struct name name;
	struct addr address;
	const char *why;

	for (size_t i = 0; i < NOPTIONS; i++)
		take_option(c, cfg, &options[i]);
	if (cfg_size(cfg, "listener") == 0)
		wrong(NULL, "no listener is configured: add one, like  listener \"main\" { address = {\"127.0.0.1:1080\"} }");
	if (cfg_size(cfg, "listener") > CONFIG_LISTENERS_MAX)
		wrong(NULL, "more than %d listeners", CONFIG_LISTENERS_MAX);
	else
		for (unsigned i = 0; i < cfg_size(cfg, "listener"); i++)
			take_listener(c, cfg_getnsec(cfg, "listener", i));
	if (c->search_domain[0] != '\0' &&
	    name_canonical(c->search_domain, strlen(c->search_domain), &name, &address, &why) != NAME_IS_NAME)
		wrong(NULL, "search-domain '%s' is no host name", c->search_domain);
	if (c->pam_processes_min > c->pam_processes)
		wrong(NULL, "pam-processes-min (%u) is more than pam-processes (%u)", c->pam_processes_min, c->pam_processes);
	if (c->pam_processes_min == 0)
		c->pam_processes_min = c->pam_processes;
	if (c->throttle_longest_wait_ms < c->throttle_first_wait_ms)
		wrong(NULL, "throttle-longest-wait (%u) is less than throttle-first-wait (%u)", c->throttle_longest_wait_ms,
		      c->throttle_first_wait_ms);
	if (c->state_dir[0] == '\0' || c->control_socket[0] == '\0' || c->policy_file[0] == '\0')
		wrong(NULL, "state-dir, control-socket and policy-file must not be empty");
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static cfg_opt_t listener_options[] = {
	CFG_STR_LIST("address", NULL, CFGF_NONE),
	CFG_STR_LIST("methods", (char *)(uintptr_t)"{password}", CFGF_NONE),
	CFG_STR_LIST("versions", (char *)(uintptr_t)"{5}", CFGF_NONE),
	CFG_STR_LIST("commands", (char *)(uintptr_t)"{connect}", CFGF_NONE),
	CFG_STR("udp-replies", "contacted", CFGF_NONE),
	CFG_STR("pam-service", "gatewayd", CFGF_NONE),
	CFG_STR("gssapi-protection", "integrity", CFGF_NONE),
	CFG_BOOL("gssapi-nec", cfg_false, CFGF_NONE),
	CFG_STR_LIST("clients", NULL, CFGF_NONE),
	CFG_INT("max-sessions", 0, CFGF_NONE),
	CFG_INT("max-sessions-per-client", 0, CFGF_NONE),
	CFG_INT("max-sessions-per-user", 0, CFGF_NONE),
	CFG_INT("max-rate", 0, CFGF_NONE),
	CFG_INT("max-rate-per-client", 0, CFGF_NONE),
	CFG_INT("max-rate-per-user", 0, CFGF_NONE),
	CFG_INT("handshake-timeout", UNSET, CFGF_NONE),
	CFG_INT("idle-timeout", UNSET, CFGF_NONE),
	CFG_INT("max-session-age", UNSET, CFGF_NONE),
	CFG_BOOL("open-proxy", cfg_false, CFGF_NONE),
	CFG_END(),
};

static void fill_confuse_table(cfg_opt_t *table)
{
	for (size_t i = 0; i < NOPTIONS; i++) {
		const struct option *o = &options[i];

		if (o->kind == NUMBER)
			table[i] = (cfg_opt_t)CFG_INT(o->name, o->number, CFGF_NONE);
		else if (o->kind == FLAG)
			table[i] = (cfg_opt_t)CFG_BOOL(o->name, o->number ? cfg_true : cfg_false, CFGF_NONE);
		else if (o->kind == ENDPOINTS)
			table[i] = (cfg_opt_t)CFG_STR_LIST(o->name, NULL, CFGF_NONE);
		else
			table[i] = (cfg_opt_t)CFG_STR(o->name, o->text, CFGF_NONE);
	}
	table[NOPTIONS] = (cfg_opt_t)CFG_SEC("listener", listener_options, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	table[NOPTIONS + 1] = (cfg_opt_t)CFG_END();
}

static cfg_t *new_parser(const char *file)
{
	static cfg_opt_t table[NOPTIONS + 2];
	cfg_t *cfg;

	fill_confuse_table(table);
	cfg = cfg_init(table, CFGF_NONE);
	if (cfg == NULL)
		return NULL;
	cfg_set_error_function(cfg, add_error);
	for (size_t i = 0; i < NOPTIONS; i++)
		cfg_set_validate_func(cfg, options[i].name, validate_option);
	cfg_set_validate_func(cfg, "listener|address", validate_address);
	cfg_set_validate_func(cfg, "listener|methods", validate_method);
	cfg_set_validate_func(cfg, "listener|versions", validate_version);
	cfg_set_validate_func(cfg, "listener|commands", validate_command);
	cfg_set_validate_func(cfg, "listener|udp-replies", validate_udp_replies);
	cfg_set_validate_func(cfg, "listener|clients", validate_client);
	cfg_set_validate_func(cfg, "listener|pam-service", validate_service);
	cfg_set_validate_func(cfg, "listener|gssapi-protection", validate_protection);
	cfg->filename = strdup(file);
	return cfg;
}

struct config *config_parse(const char *file, const char *text, char **errors)
{
	struct reading r = {.config = calloc(1, sizeof(struct config))};
	FILE *fp = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	cfg_t *cfg = new_parser(file);

	*errors = NULL;
	/* libconfuse would put in the environment's values: the starter's in the supervisor, none in its children. */
	const char *dollar = strstr(text, "${");

	if (dollar != NULL) {
		unsigned line = 1;

		for (const char *at = text; at < dollar; at++)
			line += *at == '\n';
		if (asprintf(errors, "%s:%u: ${...} is not expanded here: write the value itself", file, line) < 0)
			*errors = NULL;
		config_free(&r.config);
		if (*errors == NULL)
			*errors = strdup("out of memory");
		goto out;
	}
	if (r.config == NULL || fp == NULL || cfg == NULL || cfg->filename == NULL) {
		*errors = strdup(strlen(text) == 0 ? "the configuration file is empty" : "out of memory for the configuration");
		goto out;
	}
	reading = &r;
	snprintf(r.config->file, sizeof r.config->file, "%s", file);
	if (cfg_parse_fp(cfg, fp) == CFG_SUCCESS)
		take_all(r.config, cfg);
	else if (r.count == 0)
		wrong(cfg, "syntax error");
	reading = NULL;
	*errors = r.errors;
out:
	if (cfg != NULL)
		cfg_free(cfg);
	if (fp != NULL)
		fclose(fp);
	if (*errors != NULL)
		config_free(&r.config);
	return r.config;
}

const char *config_file_option(enum config_file file)
{
	static const char *const names[CONFIG_FILES] = {"policy-file", "geoip-database", "asn-database"};

	return names[file];
}

const char *config_file_path(const struct config *config, enum config_file file)
{
	return file == CONFIG_FILE_POLICY ? config->policy_file
	       : file == CONFIG_FILE_GEOIP ? config->geoip_database
					   : config->asn_database;
}

void config_free(struct config **config)
{
	if (*config == NULL)
		return;
	for (size_t i = 0; i < (*config)->nlisteners; i++)
		free((*config)->listeners[i].clients);
	free(*config);
	*config = NULL;
}

bool config_has_gssapi(const struct config *config)
{
	for (size_t i = 0; i < config->nlisteners; i++)
		if (memchr(config->listeners[i].methods, 0x01, config->listeners[i].nmethods) != NULL)
			return true;
	return false;
}
