/* The resolver against two servers: a real dnsmasq, and one in this program that answers whatever a test wants. */
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

#include <arpa/inet.h>
#include <event2/event.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/conf.h"
#include "gatewayd/worker/resolver.h"

#define DEADLINE_S 30

static struct event_base *base;
static struct resolver *resolver;
static struct config config;
static bool timed_out;

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	timed_out = true;
}

/* Stands in for common/clock.c. */
static int64_t now_us = 1000000000000;

bool clock_init(void)
{
	return true;
}

int64_t clock_wall_us(void)
{
	return now_us;
}

int64_t clock_mono_us(void)
{
	return now_us;
}

static void let_pass(unsigned seconds)
{
	now_us += (int64_t)seconds * 1000000;
}

#define UNTIL(condition)                                                                        \
	do {                                                                                    \
		struct event *timer = event_new(base, -1, 0, on_deadline, NULL);                \
		struct timeval tv = {.tv_sec = DEADLINE_S};                                     \
		timed_out = false;                                                              \
		event_add(timer, &tv);                                                          \
		while (!(condition) && !timed_out)                                              \
			event_base_loop(base, EVLOOP_ONCE);                                     \
		event_free(timer);                                                              \
		if (timed_out)                                                                  \
			fail_msg("waited in vain for " #condition);                             \
	} while (0)

/* ---- a server that says what it likes ---------------------------------------------------------------------------- */

static struct {
	int fd, listen_fd, stream; /* stream: the connection being answered, or -1 */
	struct event *event, *listen_event, *stream_events[8];
	size_t nstreams;
	unsigned queries;
	char asked[64][256]; /* the names, as they came */
	void (*answer)(const uint8_t *query, size_t len, uint16_t type);
	struct sockaddr_in from;
	uint8_t out[8192];
	size_t len, question; /* length of header and question */
	unsigned records;
} dns;

static size_t put_name(uint8_t *out, const char *name)
{
	size_t used = 0;

	while (*name != '\0') {
		size_t label = strcspn(name, ".");

		out[used++] = (uint8_t)label;
		memcpy(out + used, name, label);
		used += label;
		name += label + (name[label] == '.');
	}
	out[used++] = 0;
	return used;
}

static uint32_t ttl; /* of records to come */

static void put_record(const char *owner, uint16_t type, const void *data, size_t len)
{
	const uint8_t fixed[] = {(uint8_t)(type >> 8), (uint8_t)type, 0, 1, (uint8_t)(ttl >> 24), (uint8_t)(ttl >> 16),
				 (uint8_t)(ttl >> 8), (uint8_t)ttl, (uint8_t)(len >> 8), (uint8_t)len};

	dns.len += put_name(dns.out + dns.len, owner);
	memcpy(dns.out + dns.len, fixed, sizeof fixed);
	memcpy(dns.out + dns.len + sizeof fixed, data, len);
	dns.len += sizeof fixed + len;
	dns.records++;
}

static void put_a(const char *owner, uint32_t address)
{
	uint32_t data = htonl(address);

	put_record(owner, 1, &data, 4);
}

static void put_cname(const char *owner, const char *target)
{
	uint8_t data[256];

	put_record(owner, 5, data, put_name(data, target));
}

/* Copies the question, with rcode. */
static void begin(const uint8_t *query, uint8_t rcode)
{
	memcpy(dns.out, query, dns.question);
	dns.out[2] = 0x81;
	dns.out[3] = (uint8_t)(0x80 | rcode);
	memset(dns.out + 6, 0, 6);
	dns.len = dns.question;
	dns.records = 0;
}

static void send_answer(void)
{
	dns.out[6] = (uint8_t)(dns.records >> 8);
	dns.out[7] = (uint8_t)dns.records;
	if (dns.stream >= 0) {
		const uint8_t prefix[2] = {(uint8_t)(dns.len >> 8), (uint8_t)dns.len};

		assert_int_equal(send(dns.stream, prefix, 2, MSG_MORE), 2);
		assert_int_equal(send(dns.stream, dns.out, dns.len, MSG_NOSIGNAL), dns.len);
		return;
	}
	sendto(dns.fd, dns.out, dns.len, 0, (struct sockaddr *)&dns.from, sizeof dns.from);
}

static void take_query(const uint8_t *in, size_t n)
{
	char *name = dns.asked[dns.queries++ % 64];
	size_t at = 12, used = 0;

	if (n < 17)
		return;
	while (at < n && in[at] != 0 && used + in[at] + 1 < 255) {
		memcpy(name + used, in + at + 1, in[at]);
		used += in[at];
		name[used++] = '.';
		at += 1u + in[at];
	}
	name[used > 0 ? used - 1 : 0] = '\0';
	dns.question = at + 5;
	dns.answer(in, n, (uint16_t)(in[at + 1] << 8 | in[at + 2]));
}

static void on_query(evutil_socket_t fd, short what, void *arg)
{
	uint8_t in[1024];
	socklen_t from = sizeof dns.from;
	ssize_t n = recvfrom(fd, in, sizeof in, 0, (struct sockaddr *)&dns.from, &from);

	(void)what, (void)arg;
	dns.stream = -1;
	if (n > 0)
		take_query(in, (size_t)n);
}

/* RFC 1035 section 4.2.2: what is too long for a datagram is asked for again here, length first. */
static void on_stream(evutil_socket_t fd, short what, void *arg)
{
	uint8_t prefix[2], in[1024];

	(void)what, (void)arg;
	if (recv(fd, prefix, 2, MSG_WAITALL) != 2) {
		shutdown(fd, SHUT_RDWR);
		for (size_t i = 0; i < dns.nstreams; i++)
			if (event_get_fd(dns.stream_events[i]) == fd)
				event_del(dns.stream_events[i]);
		return;
	}
	size_t len = (size_t)(prefix[0] << 8 | prefix[1]);

	assert_true(len <= sizeof in);
	assert_int_equal(recv(fd, in, len, MSG_WAITALL), len);
	dns.stream = fd;
	take_query(in, len);
}

static void on_connection(evutil_socket_t fd, short what, void *arg)
{
	int stream = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	(void)what, (void)arg;
	assert_true(stream >= 0 && dns.nstreams < 8);
	dns.stream_events[dns.nstreams] = event_new(base, stream, EV_READ | EV_PERSIST, on_stream, NULL);
	event_add(dns.stream_events[dns.nstreams++], NULL);
}

static struct endpoint start_server(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sin;
	int one = 1;

	memset(&dns, 0, sizeof dns);
	dns.fd = dns.listen_fd = -1;
	/* A port that is free for both kinds. */
	for (int tries = 0; tries < 100; tries++) {
		sin.sin_port = 0;
		dns.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		dns.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(dns.listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		assert_int_equal(bind(dns.fd, (struct sockaddr *)&sin, len), 0);
		assert_int_equal(getsockname(dns.fd, (struct sockaddr *)&sin, &len), 0);
		if (bind(dns.listen_fd, (struct sockaddr *)&sin, len) == 0 && listen(dns.listen_fd, 8) == 0)
			break;
		close(dns.fd);
		close(dns.listen_fd);
		assert_true(tries < 99);
	}
	dns.event = event_new(base, dns.fd, EV_READ | EV_PERSIST, on_query, NULL);
	event_add(dns.event, NULL);
	dns.stream = -1;
	dns.listen_event = event_new(base, dns.listen_fd, EV_READ | EV_PERSIST, on_connection, NULL);
	event_add(dns.listen_event, NULL);
	return (struct endpoint){.addr = addr_v4(INADDR_LOOPBACK), .port = ntohs(sin.sin_port)};
}

/* ---- looking up --------------------------------------------------------------------------------------------------- */

static struct answer answer;
static unsigned answers;

static void on_answer(const struct answer *a, void *arg)
{
	assert_ptr_equal(arg, &answer);
	answer = *a;
	answers++;
}

static struct name name_of(const char *text)
{
	struct name name;
	struct addr unused;
	const char *why;

	assert_int_equal(name_canonical(text, strlen(text), &name, &unused, &why), NAME_IS_NAME);
	return name;
}

static void look_up(const char *text)
{
	struct name name = name_of(text);

	answers = 0;
	memset(&answer, 0, sizeof answer);
	assert_non_null(resolver_lookup(resolver, &name, on_answer, &answer));
	assert_int_equal(answers, 0); /* never before it returns */
	UNTIL(answers > 0);
	assert_int_equal(answers, 1);
}

static bool has_address(const char *text)
{
	struct addr a;

	assert_true(addr_parse(text, &a));
	for (size_t i = 0; i < answer.naddresses; i++)
		if (addr_equal(&answer.addresses[i], &a))
			return true;
	return false;
}

static bool has_alias(const char *text)
{
	for (size_t i = 0; i < answer.naliases; i++)
		if (strcmp(answer.aliases[i].text, text) == 0)
			return true;
	return false;
}

static void new_resolver(void)
{
	struct err why;

	resolver_free(&resolver);
	resolver = resolver_new(base, &config, &why);
	if (resolver == NULL)
		fail_msg("%s", why.text);
}

/* For answers that come: no load of the machine may turn them into a timeout. */
static void patient(void)
{
	config.resolver_timeout_ms = 20000;
	new_resolver();
}

static int setup(void **state)
{
	(void)state;
	/* What must change nothing. */
	setenv("LOCALDOMAIN", "search.example", 1);
	setenv("RES_OPTIONS", "ndots:5", 1);
	setenv("HOSTALIASES", "/dev/null", 1);
	base = event_base_new();
	memset(&config, 0, sizeof config);
	config.resolver_timeout_ms = 100;
	config.resolver_tries = 1;
	config.resolvers[0] = start_server();
	config.nresolvers = 1;
	ttl = 60;
	new_resolver();
	return 0;
}

static void stop_server(void)
{
	for (size_t i = 0; i < dns.nstreams; i++) {
		close(event_get_fd(dns.stream_events[i]));
		event_free(dns.stream_events[i]);
	}
	dns.nstreams = 0;
	if (dns.event != NULL) {
		event_free(dns.event);
		event_free(dns.listen_event);
		close(dns.fd);
		close(dns.listen_fd);
	}
	dns.event = NULL;
}

static int teardown(void **state)
{
	(void)state;
	resolver_free(&resolver);
	for (int i = 0; i < 5; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	stop_server();
	event_base_free(base);
	return 0;
}

/* ---- answers as they should be ---------------------------------------------------------------------------------------- */

static void say_both(const uint8_t *query, size_t len, uint16_t type)
{
	static const uint8_t v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};

	(void)len;
	begin(query, 0);
	if (type == 1)
		put_a("www.example", 0xc0000201);
	else
		put_record("www.example", 28, v6, 16);
	send_answer();
}

static void both_families_are_found(void **state)
{
	(void)state;
	patient();
	dns.answer = say_both;
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naddresses, 2);
	assert_true(has_address("192.0.2.1") && has_address("2001:db8::1"));
	assert_int_equal(answer.naliases, 0);
}

static void say_chain(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len;
	begin(query, 0);
	put_cname("www.example", "one.example");
	put_cname("one.example", "TWO.example");
	if (type == 1)
		put_a("two.example", 0xc0000201);
	send_answer();
}

static void aliases_are_collected_in_canonical_form(void **state)
{
	(void)state;
	patient();
	dns.answer = say_chain;
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naddresses, 1);
	assert_int_equal(answer.naliases, 2);
	assert_true(has_alias("one.example") && has_alias("two.example"));
}

static void the_judged_name_is_asked_and_no_other(void **state)
{
	(void)state;
	patient();
	dns.answer = say_both;
	look_up("dotless");
	look_up("www.example");
	assert_true(dns.queries >= 2);
	for (unsigned i = 0; i < dns.queries && i < 64; i++)
		assert_true(strcasecmp(dns.asked[i], "dotless") == 0 || strcasecmp(dns.asked[i], "www.example") == 0);
}

static uint8_t rcode;

static void say_rcode(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len, (void)type;
	begin(query, rcode);
	send_answer();
}

static void no_such_name(void **state)
{
	(void)state;
	patient();
	dns.answer = say_rcode;
	rcode = 3; /* NXDOMAIN */
	look_up("missing.example");
	assert_int_equal(answer.failure, REASON_NO_SUCH_NAME);
	rcode = 0; /* no data */
	look_up("empty.example");
	assert_int_equal(answer.failure, REASON_NO_SUCH_NAME);
	/* Although a search list stands in the environment. */
	for (unsigned i = 0; i < dns.queries && i < 64; i++)
		assert_null(strstr(dns.asked[i], "search"));
}

static void a_server_that_fails(void **state)
{
	(void)state;
	patient();
	dns.answer = say_rcode;
	rcode = 2; /* SERVFAIL */
	look_up("broken.example");
	assert_int_equal(answer.failure, REASON_LOOKUP_FAILED);
	assert_non_null(answer.detail);
}

static void say_nothing(const uint8_t *query, size_t len, uint16_t type)
{
	(void)query, (void)len, (void)type;
}

static void a_server_that_is_silent(void **state)
{
	(void)state;
	dns.answer = say_nothing;
	look_up("silent.example");
	assert_int_equal(answer.failure, REASON_LOOKUP_FAILED);
	assert_int_equal(answer.naddresses, 0);
}

static void who_gave_up_is_not_told(void **state)
{
	struct name name = name_of("silent.example");

	(void)state;
	dns.answer = say_nothing;
	answers = 0;
	struct lookup *lookup = resolver_lookup(resolver, &name, on_answer, &answer);

	lookup_cancel(&lookup);
	assert_null(lookup);
	lookup_cancel(&lookup);
	look_up("silent.example"); /* ends after the first one would have */
	lookup = resolver_lookup(resolver, &name, on_answer, &answer);
	resolver_free(&resolver); /* with a question under way */
	assert_int_equal(answers, 1);
}

/* ---- hostile answers ---------------------------------------------------------------------------------------------------- */

static unsigned how_many;

static void say_many(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len;
	begin(query, 0);
	for (unsigned i = 0; type == 1 && i < how_many; i++)
		put_a("www.example", 0xc6336400 + i);
	send_answer();
}

static void more_than_64_addresses_refuse_the_name(void **state)
{
	(void)state;
	patient();
	dns.answer = say_many;
	how_many = 64;
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naddresses, 64);
	how_many = 65;
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_ANSWER_REFUSED);
	assert_int_equal(answer.naddresses, 0);
}

static void say_many_aliases(const uint8_t *query, size_t len, uint16_t type)
{
	char from[64] = "www.example", to[64];

	(void)len;
	begin(query, 0);
	for (unsigned i = 0; i < how_many; i++) {
		snprintf(to, sizeof to, "alias%u.example", i);
		put_cname(from, to);
		strcpy(from, to);
	}
	if (type == 1)
		put_a(from, 0xc0000201);
	send_answer();
}

static void more_than_16_aliases_refuse_the_name(void **state)
{
	(void)state;
	patient();
	dns.answer = say_many_aliases;
	how_many = 16;
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naliases, 16);
	how_many = 17;
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_ANSWER_REFUSED);
	assert_int_equal(answer.naddresses, 0);
}

static void say_odd_alias(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len;
	begin(query, 0);
	put_cname("www.example", "not a host.example");
	if (type == 1)
		put_a("not a host.example", 0xc0000201);
	send_answer();
}

/* Policy could not judge it. */
static void an_alias_that_is_no_host_name_refuses_the_name(void **state)
{
	(void)state;
	patient();
	dns.answer = say_odd_alias;
	look_up("www.example");
	assert_int_not_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naddresses, 0);
}

static void say_unrelated(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len;
	begin(query, 0);
	if (type == 1) {
		put_a("www.example", 0xc0000201);
		put_a("elsewhere.example", 0xcb007107);
	}
	send_answer();
}

static void a_record_of_another_owner_is_not_used(void **state)
{
	(void)state;
	patient();
	dns.answer = say_unrelated;
	look_up("www.example");
	assert_false(has_address("203.0.113.7"));
}

static void say_only_unrelated(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len;
	begin(query, 0);
	if (type == 1)
		put_a("elsewhere.example", 0xcb007107);
	send_answer();
}

static void an_answer_of_other_owners_alone_is_none(void **state)
{
	(void)state;
	patient();
	dns.answer = say_only_unrelated;
	look_up("www.example");
	assert_int_not_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naddresses, 0);
}

static void say_broken_chain(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len;
	begin(query, 0);
	put_cname("www.example", "one.example");
	if (type == 1)
		put_a("elsewhere.example", 0xcb007107);
	send_answer();
}

/* Policy saw www.example and one.example, and would connect to a third. */
static void an_address_at_the_end_of_no_chain_is_not_used(void **state)
{
	(void)state;
	patient();
	dns.answer = say_broken_chain;
	look_up("www.example");
	assert_false(has_address("203.0.113.7"));
}

static void say_wrong_id(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len;
	begin(query, 0);
	dns.out[0] ^= 0x55;
	if (type == 1)
		put_a("www.example", 0xcb007107);
	send_answer();
}

static void an_answer_with_another_id_is_ignored(void **state)
{
	(void)state;
	dns.answer = say_wrong_id;
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_LOOKUP_FAILED);
}

static void say_wrong_question(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len;
	begin(query, 0);
	dns.out[13] = 'x'; /* xww.example */
	if (type == 1)
		put_a("xww.example", 0xcb007107);
	send_answer();
}

static void an_answer_to_another_question_is_ignored(void **state)
{
	(void)state;
	dns.answer = say_wrong_question;
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_LOOKUP_FAILED);
}

static void say_garbage(const uint8_t *query, size_t len, uint16_t type)
{
	(void)len, (void)type;
	begin(query, 0);
	memset(dns.out + dns.len, 0xc0, 100); /* compression that points nowhere good */
	dns.len += 100;
	dns.records = 9;
	send_answer();
}

static void garbage_is_no_answer(void **state)
{
	(void)state;
	dns.answer = say_garbage;
	look_up("www.example");
	assert_int_not_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naddresses, 0);
}

/* ---- the system's files --------------------------------------------------------------------------------------------------- */

static int sealed(const char *text)
{
	struct err why;
	int fd = sealed_create("test", text, strlen(text), &why);

	assert_true(fd >= 0);
	return fd;
}

static void the_hosts_file_goes_first(void **state)
{
	int conf = sealed("nameserver 127.0.0.1\n");
	int hosts = sealed("192.0.2.77 www.example alias.example\n::1 www.example\n");

	(void)state;
	dns.answer = say_nothing;
	resolver_use_system(resolver, conf, hosts);
	close(conf);
	close(hosts);
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naddresses, 2);
	assert_true(has_address("192.0.2.77") && has_address("::1"));
	assert_int_equal(dns.queries, 0);

	/* A table that is not sealed changes nothing. */
	int pipe_fds[2];

	assert_int_equal(pipe(pipe_fds), 0);
	resolver_use_system(resolver, pipe_fds[0], pipe_fds[1]);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	look_up("alias.example");
	assert_true(has_address("192.0.2.77"));
}

/* c-ares refuses other servers while it asks, so a change has to wait, and to come. */
static uint8_t held[512];
static size_t held_len;

static void hold(const uint8_t *query, size_t len, uint16_t type)
{
	(void)type;
	if (held_len == 0 && len <= sizeof held) {
		memcpy(held, query, len);
		held_len = len;
	}
}

static void other_servers_are_asked_after_the_query_in_flight(void **state)
{
	int conf = sealed("nameserver 127.77.77.77\n"), hosts = sealed("");
	struct name first = name_of("first.example"), second = name_of("second.example");
	unsigned asked;

	(void)state;
	config.resolver_timeout_ms = 1000;
	new_resolver();
	dns.answer = hold;
	held_len = 0;
	answers = 0;
	assert_non_null(resolver_lookup(resolver, &first, on_answer, &answer));
	UNTIL(held_len > 0);
	resolver_use_system(resolver, conf, hosts);
	/* Asked for while the first is in flight: waits, and goes to the new server alone. */
	assert_non_null(resolver_lookup(resolver, &second, on_answer, &answer));
	UNTIL(answers == 2);
	for (asked = 0; asked < dns.queries && asked < 64; asked++)
		assert_string_equal(dns.asked[asked], "first.example");
	look_up("third.example");
	assert_int_equal(dns.queries, asked);
	assert_int_equal(answer.naddresses, 0);

	/* Nobody is told when all ends while they wait, nor who gave up before. */
	int other = sealed("nameserver 127.77.77.78\n");
	struct lookup *given_up;

	assert_non_null(resolver_lookup(resolver, &first, on_answer, &answer));
	resolver_use_system(resolver, other, hosts);
	close(other);
	assert_non_null(resolver_lookup(resolver, &second, on_answer, &answer));
	given_up = resolver_lookup(resolver, &second, on_answer, &answer);
	assert_non_null(given_up);
	lookup_cancel(&given_up);
	answers = 0;
	resolver_free(&resolver);
	assert_int_equal(answers, 0);
	close(conf);
	close(hosts);
}

/* ---- what is remembered ------------------------------------------------------------------------------------------------- */

static void remember(unsigned names)
{
	config.resolver_cache = names;
	config.resolver_cache_longest_ms = 300000;
	patient();
}

/* True if a name server was asked for it. */
static bool is_asked(const char *name)
{
	unsigned before = dns.queries;

	look_up(name);
	return dns.queries != before;
}

static void an_answer_serves_as_long_as_it_lives(void **state)
{
	(void)state;
	remember(16);
	dns.answer = say_both;
	assert_true(is_asked("www.example"));
	let_pass(59);
	assert_false(is_asked("www.example"));
	assert_int_equal(answer.failure, REASON_NONE);
	assert_int_equal(answer.naddresses, 2);
	assert_true(has_address("192.0.2.1") && has_address("2001:db8::1"));
	assert_int_equal(answer.naliases, 0);
	let_pass(1);
	assert_true(is_asked("www.example"));
	/* The longest time of all. */
	ttl = 86400;
	let_pass(60);
	assert_true(is_asked("www.example"));
	let_pass(299);
	assert_false(is_asked("www.example"));
	let_pass(1);
	assert_true(is_asked("www.example"));
	/* A bound of names. */
	remember(1);
	assert_true(is_asked("www.example"));
	assert_false(is_asked("www.example"));
	dns.answer = say_chain;
	ttl = 60;
	assert_true(is_asked("two.example"));
	assert_true(is_asked("www.example"));
	/* None. */
	remember(0);
	assert_true(is_asked("www.example"));
	assert_true(is_asked("www.example"));
}

static uint32_t ttls[3]; /* of the chain, of the two families */

static void say_ttls(const uint8_t *query, size_t len, uint16_t type)
{
	static const uint8_t v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};

	(void)len;
	begin(query, 0);
	ttl = ttls[0];
	put_cname("www.example", "one.example");
	ttl = ttls[type == 1 ? 1 : 2];
	if (type == 1)
		put_a("one.example", 0xc0000201);
	else
		put_record("one.example", 28, v6, 16);
	send_answer();
}

static void the_shortest_record_counts(void **state)
{
	static const uint32_t sets[][3] = {{5, 60, 60}, {60, 5, 60}, {60, 60, 5}};
	static const uint32_t never[][3] = {{0, 60, 60}, {60, 0, 60}, {60, 60, 0}, {0x80000000, 60, 60}, {60, 0xffffffff, 60}};

	(void)state;
	dns.answer = say_ttls;
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
		memcpy(ttls, sets[i], sizeof ttls);
		remember(16);
		assert_true(is_asked("www.example"));
		let_pass(4);
		assert_false(is_asked("www.example"));
		assert_int_equal(answer.naddresses, 2);
		assert_int_equal(answer.naliases, 1);
		assert_true(has_alias("one.example"));
		let_pass(1);
		assert_true(is_asked("www.example"));
	}
	for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
		memcpy(ttls, never[i], sizeof ttls);
		remember(16);
		assert_true(is_asked("www.example"));
		assert_int_equal(answer.failure, REASON_NONE);
		assert_true(is_asked("www.example"));
	}
}

static void what_fails_is_asked_again(void **state)
{
	(void)state;
	remember(16);
	dns.answer = say_rcode;
	for (rcode = 0; rcode <= 3; rcode++) {
		assert_true(is_asked("www.example"));
		assert_true(is_asked("www.example"));
		assert_int_not_equal(answer.failure, REASON_NONE);
	}
	dns.answer = say_many;
	how_many = 65;
	assert_true(is_asked("www.example"));
	assert_true(is_asked("www.example"));
	assert_int_equal(answer.failure, REASON_ANSWER_REFUSED);
}

static unsigned v6_asked;

static void say_v6_late(const uint8_t *query, size_t len, uint16_t type)
{
	if (type == 1 || v6_asked++ % 2 == 1)
		say_both(query, len, type);
}

/* Addresses of the other family may be missing then. */
static void what_came_only_after_a_timeout_is_asked_again(void **state)
{
	(void)state;
	remember(16);
	config.resolver_timeout_ms = 100;
	config.resolver_tries = 10;
	new_resolver();
	dns.answer = say_v6_late;
	v6_asked = 0;
	assert_true(is_asked("www.example"));
	assert_int_equal(answer.failure, REASON_NONE);
	assert_true(is_asked("www.example"));
	config.resolver_tries = 1;
}

static void what_is_forgotten_is_asked_again(void **state)
{
	int conf = sealed("nameserver 127.0.0.1\n"), hosts = sealed("192.0.2.77 www.example\n");

	(void)state;
	remember(16);
	dns.answer = say_both;
	assert_true(is_asked("www.example"));
	resolver_forget_name(resolver, "ww.example");
	assert_false(is_asked("www.example"));
	resolver_forget_name(resolver, "www.example");
	assert_true(is_asked("www.example"));
	resolver_forget(resolver);
	assert_true(is_asked("www.example"));
	assert_false(is_asked("www.example"));
	/* Another hosts file, or other servers. */
	resolver_use_system(resolver, conf, hosts);
	assert_false(is_asked("www.example"));
	assert_true(has_address("192.0.2.77"));
	assert_int_equal(answer.naddresses, 1);
	close(conf);
	close(hosts);
}

static unsigned told[100];

static void on_told(const struct answer *a, void *arg)
{
	assert_int_equal(a->failure, REASON_NONE);
	assert_int_equal(a->naddresses, 2);
	++*(unsigned *)arg;
	answers++;
}

static void (*say_held)(const uint8_t *query, size_t len, uint16_t type);
static uint8_t held_queries[4][512];
static size_t held_lens[4], nheld;

static void hold_all(const uint8_t *query, size_t len, uint16_t type)
{
	(void)type;
	assert_true(nheld < 4 && len <= sizeof held_queries[0]);
	memcpy(held_queries[nheld], query, len);
	held_lens[nheld++] = len;
}

static void release(size_t from, size_t n)
{
	for (size_t i = from; i < from + n; i++) {
		const uint8_t *in = held_queries[i];

		/* A query may have records behind its question. */
		for (dns.question = 12; in[dns.question] != 0; dns.question += 1u + in[dns.question])
			;
		dns.question += 5;
		say_held(in, held_lens[i], (uint16_t)(in[dns.question - 4] << 8 | in[dns.question - 3]));
	}
}

static void who_asks_for_the_same_is_told_the_same(void **state)
{
	struct name name = name_of("www.example");
	struct lookup *given_up;

	(void)state;
	remember(0); /* with and without a memory */
	dns.answer = hold_all;
	say_held = say_both;
	nheld = 0;
	answers = 0;
	memset(told, 0, sizeof told);
	for (size_t i = 0; i < 100; i++)
		assert_non_null(resolver_lookup(resolver, &name, on_told, &told[i]));
	given_up = resolver_lookup(resolver, &name, on_told, NULL);
	lookup_cancel(&given_up);
	assert_null(given_up);
	UNTIL(nheld == 2); /* one question of each family, for all of them */
	release(0, 2);
	UNTIL(answers == 100);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(told[i], 1);
	assert_int_equal(dns.queries, 2);
}

static void what_was_asked_before_is_forgotten_too(void **state)
{
	struct name name = name_of("www.example");

	(void)state;
	remember(16);
	dns.answer = hold_all;
	say_held = say_both;
	nheld = 0;
	answers = 0;
	memset(told, 0, sizeof told);
	assert_non_null(resolver_lookup(resolver, &name, on_told, &told[0]));
	UNTIL(nheld == 2);
	resolver_forget(resolver);
	/* Does not wait for the answer to a question from before. */
	assert_non_null(resolver_lookup(resolver, &name, on_told, &told[1]));
	UNTIL(nheld == 4);
	release(0, 2);
	UNTIL(told[0] == 1);
	assert_int_equal(told[1], 0);
	/* Nor is that answer kept. */
	nheld = 2;
	answers = 0;
	dns.answer = say_both;
	release(2, 2);
	UNTIL(told[1] == 1);
	assert_false(is_asked("www.example")); /* the second is */
	/* What waits for nobody any more, or for its delivery, when all ends. */
	let_pass(60);
	dns.answer = hold_all;
	nheld = 0;
	assert_non_null(resolver_lookup(resolver, &name, on_told, &told[0]));
	UNTIL(nheld == 2);
	resolver_free(&resolver);
	remember(16);
	dns.answer = say_both;
	assert_true(is_asked("www.example"));
	assert_non_null(resolver_lookup(resolver, &name, on_told, &told[0]));
	resolver_free(&resolver);
	assert_int_equal(told[0], 1);
}

/* ---- a real server ---------------------------------------------------------------------------------------------------------- */

extern char **environ;

static void a_real_server_is_understood(void **state)
{
	char port[16], argument[32];
	pid_t pid;
	int status;

	(void)state;
	/* Our server's port is given up and taken over by dnsmasq; the lookup is tried until it is there. */
	stop_server();
	snprintf(port, sizeof port, "%u", config.resolvers[0].port);
	snprintf(argument, sizeof argument, "--port=%s", port);
	char *argv[] = {(char *)(uintptr_t)"dnsmasq", (char *)(uintptr_t)"--keep-in-foreground",
			(char *)(uintptr_t)"--conf-file=/dev/null", (char *)(uintptr_t)"--pid-file=",
			(char *)(uintptr_t)"--no-resolv", (char *)(uintptr_t)"--no-hosts",
			(char *)(uintptr_t)"--listen-address=127.0.0.1", (char *)(uintptr_t)"--bind-interfaces",
			(char *)(uintptr_t)"--user=", (char *)(uintptr_t)"--group=",
			(char *)(uintptr_t)"--address=/www.example/192.0.2.9",
			(char *)(uintptr_t)"--address=/www.example/2001:db8::9",
			(char *)(uintptr_t)"--host-record=target.example,192.0.2.10",
			(char *)(uintptr_t)"--cname=alias.example,target.example",
			(char *)(uintptr_t)"--local=/example/", argument, NULL};
	const char *path = access("/usr/sbin/dnsmasq", X_OK) == 0 ? "/usr/sbin/dnsmasq" : "dnsmasq";

	assert_int_equal(posix_spawnp(&pid, path, NULL, NULL, argv, environ), 0);
	config.resolver_timeout_ms = 200;
	new_resolver();
	for (int i = 0; i < 200 && waitpid(pid, &status, WNOHANG) == 0; i++) {
		look_up("www.example");
		if (answer.failure == REASON_NONE)
			break;
	}
	patient(); /* it answers: now it has time to */
	look_up("www.example");
	assert_int_equal(answer.failure, REASON_NONE);
	assert_true(has_address("192.0.2.9") && has_address("2001:db8::9"));
	assert_int_equal(answer.naddresses, 2);
	look_up("alias.example");
	assert_int_equal(answer.failure, REASON_NONE);
	assert_true(has_address("192.0.2.10"));
	assert_true(has_alias("target.example"));
	look_up("missing.example");
	assert_int_equal(answer.failure, REASON_NO_SUCH_NAME);
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(both_families_are_found),
		TEST(aliases_are_collected_in_canonical_form),
		TEST(the_judged_name_is_asked_and_no_other),
		TEST(no_such_name),
		TEST(a_server_that_fails),
		TEST(a_server_that_is_silent),
		TEST(who_gave_up_is_not_told),
		TEST(more_than_64_addresses_refuse_the_name),
		TEST(more_than_16_aliases_refuse_the_name),
		TEST(an_alias_that_is_no_host_name_refuses_the_name),
		TEST(a_record_of_another_owner_is_not_used),
		TEST(an_answer_of_other_owners_alone_is_none),
		TEST(an_address_at_the_end_of_no_chain_is_not_used),
		TEST(an_answer_with_another_id_is_ignored),
		TEST(an_answer_to_another_question_is_ignored),
		TEST(garbage_is_no_answer),
		TEST(the_hosts_file_goes_first),
		TEST(other_servers_are_asked_after_the_query_in_flight),
		TEST(an_answer_serves_as_long_as_it_lives),
		TEST(the_shortest_record_counts),
		TEST(what_fails_is_asked_again),
		TEST(what_came_only_after_a_timeout_is_asked_again),
		TEST(what_is_forgotten_is_asked_again),
		TEST(who_asks_for_the_same_is_told_the_same),
		TEST(what_was_asked_before_is_forgotten_too),
		TEST(a_real_server_is_understood),
	};

	log_init("test", LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
