#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gatewayd/conf.h"

#define LISTENER "listener \"main\" { address = {\"127.0.0.1:1080\"} }\n"

static struct config *config;
static char *errors;

static int clear(void **state)
{
	(void)state;
	config_free(&config);
	free(errors);
	errors = NULL;
	return 0;
}

static void parse(const char *text)
{
	clear(NULL);
	config = config_parse("/etc/g.conf", text, &errors);
	assert_int_equal(config == NULL, errors != NULL);
}

static void accepted(const char *text)
{
	parse(text);
	if (errors != NULL)
		fail_msg("refused: %s", errors);
}

/* One line, and it is the one expected. */
static void refused(const char *text, const char *want)
{
	parse(text);
	if (errors == NULL)
		fail_msg("accepted: %s", text);
	if (strncmp(errors, want, strlen(want)) != 0)
		fail_msg("'%s' does not begin with '%s'", errors, want);
	assert_null(strchr(errors, '\n'));
}

static void defaults(void **state)
{
	(void)state;
	accepted(LISTENER);
	assert_string_equal(config->file, "/etc/g.conf");
	assert_int_equal(config->workers, 2);
	assert_int_equal(config->max_sessions, 0);
	assert_string_equal(config->user, "gatewayd");
	assert_string_equal(config->pam_user, "root");
	assert_string_equal(config->state_dir, "/var/lib/gatewayd");
	assert_string_equal(config->control_socket, "/run/gatewayd/control.sock");
	assert_string_equal(config->control_group, "");
	assert_string_equal(config->policy_file, "/etc/gatewayd/gateway.policy");
	assert_false(config->policy_approval);
	assert_int_equal(config->policy_approval_within_ms, 7 * 24 * 3600 * 1000);
	assert_string_equal(config->geoip_database, "");
	assert_int_equal(config->nresolvers, 0);
	assert_int_equal(config->resolver_timeout_ms, 2000);
	assert_int_equal(config->resolver_tries, 3);
	assert_int_equal(config->resolver_cache, 4096);
	assert_int_equal(config->resolver_cache_longest_ms, 300000);
	assert_string_equal(config->search_domain, "");
	assert_string_equal(config->pam_config_dir, "");
	assert_string_equal(config->pam_groups_file, "");
	assert_int_equal(config->pam_processes, 8);
	assert_int_equal(config->pam_processes_min, 8);
	assert_int_equal(config->pam_idle_timeout_ms, 60000);
	assert_int_equal(config->pam_queue, 8192);
	assert_int_equal(config->pam_timeout_ms, 60000);
	assert_string_equal(config->gssapi_keytab, "");
	assert_string_equal(config->gssapi_krb5_conf, "/etc/krb5.conf");
	assert_int_equal(config->gssapi_contexts, 1024);
	assert_false(config_has_gssapi(config));
	assert_int_equal(config->listeners[0].gssapi_protection, 1);
	assert_false(config->listeners[0].gssapi_nec);
	assert_int_equal(config->remember_logins_ms, 60000);
	assert_int_equal(config->throttle_user_failures, 5);
	assert_int_equal(config->throttle_client_failures, 20);
	assert_int_equal(config->throttle_first_wait_ms, 1000);
	assert_int_equal(config->throttle_longest_wait_ms, 900000);
	assert_int_equal(config->throttle_prefix_v4, 32);
	assert_int_equal(config->throttle_prefix_v6, 64);
	assert_false(config->fold_user_case);
	assert_true(config->udp_offload);
	assert_false(config->cpu_local);
	assert_int_equal(config->handshake_timeout_ms, 30000);
	assert_int_equal(config->connect_timeout_ms, 20000);
	assert_int_equal(config->idle_timeout_ms, 7200000);
	assert_int_equal(config->bind_timeout_ms, 120000);
	assert_int_equal(config->udp_idle_timeout_ms, 60000);
	assert_int_equal(config->audit_timeout_ms, 10000);
	assert_int_equal(config->commit_interval_us, 2000);
	assert_int_equal(config->compile_timeout_ms, 120000);
	assert_int_equal(config->worker_timeout_ms, 30000);
	assert_int_equal(config->process_timeout_ms, 60000);
	assert_int_equal(config->recorder_timeout_ms, 300000);
	assert_false(limit_set_connections(&config->limits) || limit_set_users(&config->limits));
	assert_true(config->sandbox);
	assert_int_equal(config->log_level, LOG_INFO);
	assert_int_equal(config->nlisteners, 1);

	const struct config_listener *l = &config->listeners[0];
	struct endpoint want = {.addr = addr_v4(0x7f000001), .port = 1080};

	assert_string_equal(l->name, "main");
	assert_int_equal(l->naddresses, 1);
	assert_true(addr_equal(&l->addresses[0].addr, &want.addr));
	assert_int_equal(l->addresses[0].port, 1080);
	assert_int_equal(l->nmethods, 1);
	assert_int_equal(l->methods[0], 0x02);
	assert_string_equal(l->pam_service, "gatewayd");
	assert_int_equal(l->nclients, 0);
	assert_false(l->open_proxy);
	assert_false(l->socks4);
	assert_true(l->socks5);
	assert_int_equal(l->commands, 1u << 1);
}

static void every_option_is_taken(void **state)
{
	char text[ADDR_TEXT_MAX];

	(void)state;
	accepted("workers = 4\ncpu-local = yes\nmax-sessions = 100\nuser = \"u\"\npam-user = \"p\"\nstate-dir = \"/s\"\n"
		 "control-socket = \"/c\"\ncontrol-group = \"adm\"\nviewer-group = \"v\"\npolicy-file = \"/p\"\npolicy-approval = true\npolicy-approval-within = 1000\ngeoip-database = \"/g\"\n"
		 "resolver = {\"192.0.2.53:53\", \"[::1]:5353\"}\nresolver-timeout = 100\nresolver-tries = 1\n"
		 "resolver-cache = 7\nresolver-cache-longest = 1000\n"
		 "search-domain = \"example.com\"\npam-config-dir = \"/d\"\npam-groups-file = \"/gr\"\n"
		 "pam-processes = 3\npam-queue = 5\npam-timeout = 1000\nfold-user-case = true\n"
		 "remember-logins = 0\nthrottle-user-failures = 1\nthrottle-client-failures = 2\nthrottle-first-wait = 103\n"
		 "throttle-longest-wait = 104\nthrottle-prefix-ipv4 = 24\nthrottle-prefix-ipv6 = 48\n"
		 "handshake-timeout = 101\nconnect-timeout = 102\nidle-timeout = 103\naudit-timeout = 104\n"
		 "bind-timeout = 105\nudp-idle-timeout = 1006\nudp-offload = no\n"
		 "commit-interval = 0\ncompile-timeout = 1001\nworker-timeout = 1002\nprocess-timeout = 1003\nrecorder-timeout = 1004\n"
		 "max-sessions-per-client = 11\nmax-sessions-per-user = 12\nmax-rate-per-client = 13\nmax-rate-per-user = 14\nsandbox = no\nlog-level = \"debug\"\n"
		 "listener \"a\" { address = {\"0.0.0.0:1\", \"[::]:2\"} methods = {\"none\", \"password\"}\n"
		 "pam-service = \"x\" clients = {\"10.0.0.0/8\", \"2001:db8::/32\"} open-proxy = true\n"
		 "versions = {\"4\", \"5\"} commands = {\"udp\", \"bind\", \"connect\"}\n"
		 "udp-replies = \"any\" handshake-timeout = 201 idle-timeout = 203 max-session-age = 0 }\n"
		 "max-session-age = 107\n" LISTENER);
	assert_int_equal(config->workers, 4);
	assert_true(config->cpu_local);
	assert_int_equal(config->remember_logins_ms, 0);
	assert_int_equal(config->throttle_user_failures, 1);
	assert_int_equal(config->throttle_client_failures, 2);
	assert_int_equal(config->throttle_first_wait_ms, 103);
	assert_int_equal(config->throttle_longest_wait_ms, 104);
	assert_int_equal(config->throttle_prefix_v4, 24);
	assert_int_equal(config->throttle_prefix_v6, 48);
	assert_int_equal(config->max_sessions, 100);
	assert_string_equal(config->user, "u");
	assert_string_equal(config->pam_user, "p");
	assert_string_equal(config->state_dir, "/s");
	assert_string_equal(config->control_socket, "/c");
	assert_string_equal(config->control_group, "adm");
	assert_string_equal(config->viewer_group, "v");
	assert_string_equal(config->policy_file, "/p");
	assert_string_equal(config->geoip_database, "/g");
	assert_int_equal(config->nresolvers, 2);
	assert_string_equal(addr_format(&config->resolvers[1].addr, text), "::1");
	assert_int_equal(config->resolvers[1].port, 5353);
	assert_int_equal(config->resolver_timeout_ms, 100);
	assert_int_equal(config->resolver_tries, 1);
	assert_int_equal(config->resolver_cache, 7);
	assert_int_equal(config->resolver_cache_longest_ms, 1000);
	assert_string_equal(config->search_domain, "example.com");
	assert_string_equal(config->pam_config_dir, "/d");
	assert_string_equal(config->pam_groups_file, "/gr");
	assert_int_equal(config->pam_processes, 3);
	assert_int_equal(config->pam_queue, 5);
	assert_int_equal(config->pam_timeout_ms, 1000);
	assert_true(config->fold_user_case);
	assert_false(config->udp_offload);
	assert_true(config->policy_approval);
	assert_int_equal(config->policy_approval_within_ms, 1000);
	assert_int_equal(config->handshake_timeout_ms, 101);
	assert_int_equal(config->connect_timeout_ms, 102);
	assert_int_equal(config->idle_timeout_ms, 103);
	assert_int_equal(config->audit_timeout_ms, 104);
	assert_int_equal(config->bind_timeout_ms, 105);
	assert_int_equal(config->udp_idle_timeout_ms, 1006);
	assert_int_equal(config->commit_interval_us, 0);
	assert_int_equal(config->compile_timeout_ms, 1001);
	assert_int_equal(config->worker_timeout_ms, 1002);
	assert_int_equal(config->process_timeout_ms, 1003);
	assert_int_equal(config->recorder_timeout_ms, 1004);
	assert_int_equal(config->limits.per_client, 11);
	assert_int_equal(config->limits.per_user, 12);
	assert_int_equal(config->limits.rate_per_client, 13);
	assert_int_equal(config->limits.rate_per_user, 14);
	assert_false(config->sandbox);
	assert_int_equal(config->log_level, LOG_DEBUG);
	assert_int_equal(config->nlisteners, 2);
	assert_int_equal(config->listeners[0].naddresses, 2);
	assert_memory_equal(config->listeners[0].methods, "\x00\x02", 2);
	assert_string_equal(config->listeners[0].pam_service, "x");
	assert_int_equal(config->listeners[0].nclients, 2);
	assert_int_equal(config->listeners[0].clients[0].bits, 8);
	assert_true(config->listeners[0].open_proxy);
	assert_true(config->listeners[0].socks4);
	assert_true(config->listeners[0].socks5);
	assert_int_equal(config->listeners[0].commands, 1u << 1 | 1u << 2 | 1u << 3);
	assert_true(config->listeners[0].udp_replies_any);
	assert_false(config->listeners[1].udp_replies_any);
	assert_int_equal(config->listeners[0].handshake_timeout_ms, 201);
	assert_int_equal(config->listeners[0].idle_timeout_ms, 203);
	assert_int_equal(config->listeners[0].max_session_age_ms, 0);
	assert_int_equal(config->listeners[1].handshake_timeout_ms, 101);
	assert_int_equal(config->listeners[1].idle_timeout_ms, 103);
	assert_int_equal(config->listeners[1].max_session_age_ms, 107);
	assert_string_equal(config->listeners[1].name, "main");
}

static void every_number_at_its_bounds(void **state)
{
	static const struct {
		const char *name;
		long min, max;
	} numbers[] = {
		{"workers", 1, 64},
		{"max-sessions", 0, 4000000},
		{"resolver-timeout", 100, 60000},
		{"resolver-tries", 1, 10},
		{"resolver-cache", 0, 262144},
		{"resolver-cache-longest", 1000, 86400000},
		{"pam-processes", 1, 256},
		{"pam-queue", 1, 100000},
		{"pam-timeout", 1000, 600000},
		{"handshake-timeout", 100, 600000},
		{"connect-timeout", 100, 600000},
		{"idle-timeout", 100, 2592000000},
		{"audit-timeout", 100, 600000},
		{"bind-timeout", 100, 3600000},
		{"udp-idle-timeout", 1000, 86400000},
		{"commit-interval", 0, 1000000},
		{"compile-timeout", 1000, 3600000},
	};
	char text[256], want[256];

	(void)state;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		const long bad[] = {numbers[i].min - 1, numbers[i].max + 1, -1000000, 4294967296 + numbers[i].min};

		for (int k = 0; k < 2; k++) {
			snprintf(text, sizeof text, LISTENER "%s = %ld\n", numbers[i].name,
				 k == 0 ? numbers[i].min : numbers[i].max);
			accepted(text);
		}
		for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
			snprintf(text, sizeof text, LISTENER "%s = %ld\n", numbers[i].name, bad[k]);
			snprintf(want, sizeof want, "/etc/g.conf:2: %s is from %ld to %ld, not %ld", numbers[i].name,
				 numbers[i].min, numbers[i].max, bad[k]);
			refused(text, want);
		}
		snprintf(text, sizeof text, LISTENER "%s = many\n", numbers[i].name);
		parse(text);
		assert_non_null(errors);
		assert_non_null(strstr(errors, "/etc/g.conf:2: "));
		snprintf(text, sizeof text, LISTENER "%s = 99999999999999999999999\n", numbers[i].name);
		parse(text);
		assert_non_null(errors);
	}
}

static void every_text_at_its_bound(void **state)
{
	static const struct {
		const char *name;
		size_t max;
	} texts[] = {{"user", 63},	     {"pam-user", 63},	       {"control-group", 63}, {"operator-group", 63}, {"control-socket", 103},
		     {"state-dir", 4095},    {"policy-file", 4095},    {"geoip-database", 4095},
		     {"pam-config-dir", 4095}, {"pam-groups-file", 4095}};
	char text[5000], value[4200], want[256];

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		memset(value, 'x', sizeof value);
		value[0] = '/';
		value[texts[i].max] = '\0';
		snprintf(text, sizeof text, "%s = \"%s\"\n" LISTENER, texts[i].name, value);
		accepted(text);
		value[texts[i].max] = 'x';
		value[texts[i].max + 1] = '\0';
		snprintf(text, sizeof text, "%s = \"%s\"\n" LISTENER, texts[i].name, value);
		snprintf(want, sizeof want, "/etc/g.conf:1: %s is longer than %zu bytes", texts[i].name, texts[i].max);
		refused(text, want);
	}
}

static void paths_are_absolute(void **state)
{
	(void)state;
	refused(LISTENER "state-dir = \"state\"\n", "/etc/g.conf:2: state-dir must be an absolute path, not 'state'");
	refused(LISTENER "policy-file = \"\"\n", "/etc/g.conf: state-dir, control-socket and policy-file must not be empty");
	accepted(LISTENER "geoip-database = \"\"\n");
}

static void words_and_flags(void **state)
{
	(void)state;
	refused(LISTENER "\n\nlog-level = \"loud\"\n", "/etc/g.conf:4: log-level is error, warning, info or debug, not 'loud'");
	parse(LISTENER "sandbox = maybe\n");
	assert_non_null(errors);
	assert_non_null(strstr(errors, "/etc/g.conf:2: "));
	refused(LISTENER "search-domain = \"a b\"\n", "/etc/g.conf: search-domain 'a b' is no host name");
	refused(LISTENER "search-domain = \"10.0.0.1\"\n", "/etc/g.conf: search-domain '10.0.0.1' is no host name");
}

static void unknown_options_are_errors(void **state)
{
	(void)state;
	parse(LISTENER "\nworker = 4\n");
	assert_non_null(errors);
	assert_non_null(strstr(errors, "/etc/g.conf:3: "));
	assert_non_null(strstr(errors, "worker"));
	parse("listener \"main\" {\n\taddress = {\"127.0.0.1:1\"}\n\tport = 1\n}\n");
	assert_non_null(errors);
	assert_non_null(strstr(errors, "/etc/g.conf:3: "));
	assert_non_null(strstr(errors, "port"));
	parse("workers = 2 }\n" LISTENER);
	assert_non_null(errors);
	parse("listener { address = {\"127.0.0.1:1\"} }\n");
	assert_non_null(errors);
}

static void all_errors_are_told_in_one_run(void **state)
{
	(void)state;
	parse("workers = 0\nlog-level = \"x\"\nresolver = {\"nowhere\"}\n"
	      "listener \"a\" { address = {\"127.0.0.1\"}\n methods = {\"magic\"} }\n");
	assert_non_null(errors);
	assert_non_null(strstr(errors, "/etc/g.conf:1: workers"));
	assert_non_null(strstr(errors, "\n/etc/g.conf:2: log-level"));
	assert_non_null(strstr(errors, "\n/etc/g.conf:3: resolver"));
	assert_non_null(strstr(errors, "\n/etc/g.conf:4: address is ADDRESS:PORT"));
	assert_non_null(strstr(errors, "\n/etc/g.conf:5: methods are none, password and gssapi, not 'magic'"));
}

/* A file of nothing but faults must not make a message without end. */
static void errors_are_bounded(void **state)
{
	char *text = malloc(200000);
	size_t len = 0, lines = 1;

	(void)state;
	assert_non_null(text);
	for (int i = 0; i < 5000; i++)
		len += (size_t)sprintf(text + len, "workers = 0\n");
	sprintf(text + len, LISTENER);
	parse(text);
	assert_non_null(errors);
	for (const char *at = errors; *at != '\0'; at++)
		lines += *at == '\n';
	assert_true(lines <= 51);
	free(text);
}

static void twice_is_an_error(void **state)
{
	(void)state;
	refused(LISTENER "workers = 2\nworkers = 3\n", "/etc/g.conf:3: workers is given twice");
	refused(LISTENER "user = \"a\"\nuser = \"b\"\n", "/etc/g.conf:3: user is given twice");
	parse(LISTENER "listener \"main\" { address = {\"127.0.0.1:1081\"} }\n");
	assert_non_null(errors);
	assert_non_null(strstr(errors, "main"));
	parse("listener \"a\" { address = {\"127.0.0.1:1\"} methods = {\"password\", \"password\"} }\n");
	assert_non_null(errors);
	assert_non_null(strstr(errors, "names a method twice"));
}

static void addresses_are_listened_on_once(void **state)
{
	(void)state;
	parse("listener \"a\" { address = {\"127.0.0.1:1\", \"127.0.0.1:1\"} }\n");
	assert_non_null(errors);
	assert_non_null(strstr(errors, "address 127.0.0.1:1 is listened on twice"));
	parse("listener \"a\" { address = {\"[::1]:1\"} }\nlistener \"b\" { address = {\"[0:0::1]:1\"} }\n");
	assert_non_null(errors);
	assert_non_null(strstr(errors, "is listened on twice"));
	accepted("listener \"a\" { address = {\"127.0.0.1:1\", \"127.0.0.1:2\", \"[::1]:1\"} }\n");
}

static void bad_endpoints(void **state)
{
	static const char *const bad[] = {"127.0.0.1",	 "127.0.0.1:",	     "127.0.0.1:0",  "127.0.0.1:65536", "localhost:1080",
					  "::1:1080",	 "[::1]",	     "[::1:1080",    ":1080",		"127.1:1080",
					  "[fe80::1%lo]:1080", "127.0.0.1:10 80", "127.0.0.1:-1", "127.0.0.1:+1", ""};
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		snprintf(text, sizeof text, "listener \"a\" { address = {\"%s\"} }\n", bad[i]);
		parse(text);
		assert_non_null(errors);
		assert_non_null(strstr(errors, "/etc/g.conf:1: address is ADDRESS:PORT or [ADDRESS]:PORT, not '"));
		snprintf(text, sizeof text, LISTENER "resolver = {\"%s\"}\n", bad[i]);
		parse(text);
		assert_non_null(errors);
		assert_non_null(strstr(errors, "/etc/g.conf:2: resolver is ADDRESS:PORT"));
	}
}

static void counts_are_bounded(void **state)
{
	char text[20000] = "listener \"a\" { address = {", one[128];

	(void)state;
	for (int i = 1; i <= 16; i++) {
		snprintf(one, sizeof one, "%s\"127.0.0.1:%d\"", i == 1 ? "" : ", ", i);
		strcat(text, one);
	}
	size_t len = strlen(text);

	strcat(text, "} }\n");
	accepted(text);
	strcpy(text + len, ", \"127.0.0.1:17\"} }\n");
	parse(text);
	assert_non_null(errors);
	assert_non_null(strstr(errors, "needs 1 to 16 addresses"));

	strcpy(text, LISTENER "resolver = {");
	for (int i = 1; i <= 9; i++) {
		snprintf(one, sizeof one, "%s\"127.0.0.1:%d\"", i == 1 ? "" : ", ", i);
		strcat(text, one);
	}
	strcat(text, "}\n");
	parse(text);
	assert_non_null(errors);
	assert_non_null(strstr(errors, "at most 8 values of resolver"));

	text[0] = '\0';
	for (int i = 1; i <= 65; i++) {
		snprintf(one, sizeof one, "listener \"l%d\" { address = {\"127.0.0.1:%d\"} }\n", i, i);
		strcat(text, one);
		if (i == 64)
			accepted(text);
	}
	parse(text);
	assert_non_null(errors);
	assert_non_null(strstr(errors, "more than 64 listeners"));
}

static void a_listener_needs_sense(void **state)
{
	(void)state;
	refused("", "/etc/g.conf: no listener is configured");
	refused("workers = 1\n", "/etc/g.conf: no listener is configured");
	parse("listener \"a\" { methods = {\"password\"} }\n");
	assert_non_null(strstr(errors, "listener 'a' needs 1 to 16 addresses"));
	parse("listener \"\" { address = {\"127.0.0.1:1\"} }\n");
	assert_non_null(strstr(errors, "a listener's name has 1 to 63 bytes"));
	parse("listener \"a\" { address = {\"127.0.0.1:1\"} methods = {} }\n");
	assert_non_null(strstr(errors, "listener 'a' offers no method"));
	parse("listener \"a\" { address = {\"127.0.0.1:1\"} pam-service = \"../shadow\" }\n");
	assert_non_null(strstr(errors, "pam-service is the name of a PAM service"));
	parse("listener \"a\" { address = {\"127.0.0.1:1\"} clients = {\"10.0.0.1/8\"} }\n");
	assert_non_null(strstr(errors, "clients: '10.0.0.1/8' has host bits set"));
	parse("listener \"a\" { address = {\"127.0.0.1:1\"} clients = {\"everybody\"} }\n");
	assert_non_null(strstr(errors, "clients are prefixes like 10.0.0.0/8, not 'everybody'"));
}

/* Parses one listener with these options. */
static void parse_listener(const char *options)
{
	char text[512];

	snprintf(text, sizeof text, "listener \"a\" { address = {\"127.0.0.1:1\"} %s }\n", options);
	parse(text);
}

static void versions_and_commands(void **state)
{
	static const struct {
		const char *options, *want;
	} bad[] = {
		{"versions = {\"6\"}", "versions are 4 and 5, not '6'"},
		{"versions = {\"4a\"}", "versions are 4 and 5, not '4a'"},
		{"versions = {}", "serves no version"},
		{"commands = {\"listen\"}", "commands are connect, bind and udp, not 'listen'"},
		{"commands = {\"\"}", "commands are connect, bind and udp, not ''"},
		{"commands = {}", "serves no command"},
		{"versions = {\"4\"} methods = {\"password\"}", "SOCKS4"},
		{"versions = {\"4\", \"5\"}", "SOCKS4"},
		{"handshake-timeout = 99", "handshake-timeout is from 100 to 600000, not 99"},
		{"idle-timeout = 0", "idle-timeout is from 100 to 2592000000, not 0"},
		{"max-session-age = -1", "max-session-age is from 0 to 4233600000, not -1"},
		{"udp-replies = \"all\"", "udp-replies is contacted or any, not 'all'"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		parse_listener(bad[i].options);
		if (errors == NULL || strstr(errors, bad[i].want) == NULL)
			fail_msg("%s: '%s', not '%s'", bad[i].options, errors, bad[i].want);
	}
	parse_listener("versions = {\"4\"} methods = {\"none\"} commands = {\"bind\"}");
	assert_null(errors);
	assert_true(config->listeners[0].socks4);
	assert_false(config->listeners[0].socks5);
	assert_int_equal(config->listeners[0].commands, 1u << 2);
	parse_listener("versions = {\"5\"} commands = {\"udp\"}");
	assert_null(errors);
	assert_false(config->listeners[0].socks4);
	assert_int_equal(config->listeners[0].commands, 1u << 3);
}

static void an_open_proxy_must_be_said(void **state)
{
	static const char *const open[] = {"0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[2001:db8::1]:1"};
	char text[256];

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		snprintf(text, sizeof text, "listener \"a\" { address = {\"127.0.0.1:2\", \"%s\"} methods = {\"none\"} }\n", open[i]);
		parse(text);
		assert_non_null(errors);
		assert_non_null(strstr(errors, "say open-proxy = true"));
		snprintf(text, sizeof text, "listener \"a\" { address = {\"%s\"} methods = {\"password\", \"none\"} }\n", open[i]);
		parse(text);
		assert_non_null(errors);
		snprintf(text, sizeof text, "listener \"a\" { address = {\"%s\"} methods = {\"none\"} open-proxy = true }\n", open[i]);
		accepted(text);
		snprintf(text, sizeof text,
			 "listener \"a\" { address = {\"%s\"} methods = {\"none\"} clients = {\"10.0.0.0/8\"} }\n", open[i]);
		accepted(text);
		snprintf(text, sizeof text, "listener \"a\" { address = {\"%s\"} methods = {\"password\"} }\n", open[i]);
		accepted(text);
	}
	accepted("listener \"a\" { address = {\"127.0.0.1:1\", \"[::1]:1\", \"127.9.9.9:1\"} methods = {\"none\"} }\n");
}

/* Naming everybody as a client is the same as naming nobody. */
static void everybody_is_no_restriction(void **state)
{
	(void)state;
	parse("listener \"a\" { address = {\"0.0.0.0:1\"} methods = {\"none\"} clients = {\"0.0.0.0/0\"} }\n");
	assert_non_null(errors);
	parse("listener \"a\" { address = {\"[::]:1\"} methods = {\"none\"} clients = {\"10.0.0.0/8\", \"::/0\"} }\n");
	assert_non_null(errors);
}

/* The file decides, and no other. */
static void no_other_file_is_drawn_in(void **state)
{
	(void)state;
	parse("include(\"/etc/passwd\")\n" LISTENER);
	assert_non_null(errors);
	assert_non_null(strstr(errors, "include"));
}

static void pool_has_bounds(void **state)
{
	(void)state;
	accepted(LISTENER "pam-processes = 4\npam-processes-min = 2\npam-idle-timeout = 100\n");
	assert_int_equal(config->pam_processes_min, 2);
	assert_int_equal(config->pam_idle_timeout_ms, 100);
	refused(LISTENER "pam-processes = 4\npam-processes-min = 5\n",
		"/etc/g.conf: pam-processes-min (5) is more than pam-processes (4)");
}

static void gssapi(void **state)
{
	(void)state;
	accepted("gssapi-keytab = \"/k\"\ngssapi-krb5-conf = \"/c\"\ngssapi-contexts = 4\n"
		 "listener \"a\" { address = {\"0.0.0.0:1\"} methods = {\"gssapi\", \"password\"}\n"
		 "gssapi-protection = \"confidentiality\" gssapi-nec = true }\n");
	assert_true(config_has_gssapi(config));
	assert_int_equal(config->listeners[0].methods[0], 0x01);
	assert_int_equal(config->listeners[0].methods[1], 0x02);
	assert_int_equal(config->listeners[0].gssapi_protection, 2);
	assert_true(config->listeners[0].gssapi_nec);
	assert_string_equal(config->gssapi_keytab, "/k");
	assert_string_equal(config->gssapi_krb5_conf, "/c");
	assert_int_equal(config->gssapi_contexts, 4);
	refused("listener \"a\" { address = {\"127.0.0.1:1\"} methods = {\"gssapi\"} }\n",
		"/etc/g.conf:1: listener 'a' offers gssapi: set gssapi-keytab");
	refused("listener \"a\" { address = {\"127.0.0.1:1\"} gssapi-protection = \"some\" }\n",
		"/etc/g.conf:1: gssapi-protection is none, integrity or confidentiality, not 'some'");
}

#define TEST(f) cmocka_unit_test_teardown(f, clear)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(defaults),
		TEST(every_option_is_taken),
		TEST(gssapi),
		TEST(pool_has_bounds),
		TEST(every_number_at_its_bounds),
		TEST(every_text_at_its_bound),
		TEST(paths_are_absolute),
		TEST(words_and_flags),
		TEST(unknown_options_are_errors),
		TEST(all_errors_are_told_in_one_run),
		TEST(errors_are_bounded),
		TEST(twice_is_an_error),
		TEST(addresses_are_listened_on_once),
		TEST(bad_endpoints),
		TEST(counts_are_bounded),
		TEST(a_listener_needs_sense),
		TEST(versions_and_commands),
		TEST(an_open_proxy_must_be_said),
		TEST(everybody_is_no_restriction),
		TEST(no_other_file_is_drawn_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
