#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "auth/auth.h"

static struct auth_ask some_ask(void)
{
	struct auth_ask a = {.id = 7,
			     .service = "gatewayd",
			     .listener = "lan",
			     .client = addr_v4(0xc0000201),
			     .user = "ann",
			     .password = "correct horse"};

	return a;
}

static struct auth_answer some_answer(void)
{
	struct auth_answer a = {.id = 9, .verdict = AUTH_OK, .user = "ann", .ngroups = 2, .groups = {"hr", "eng"}};

	return a;
}

static bool ask_survives(const struct auth_ask *in, struct auth_ask *out)
{
	uint8_t body[2048];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	auth_put_ask(&w, in);
	assert_false(w.overflow);
	assert_true(w.len <= ipc_body_max(IPC_AUTH_ASK) && w.len <= ipc_body_max(IPC_PAM_ASK));
	struct wire_reader r = wire_reader_on(body, w.len);

	return auth_get_ask(&r, out);
}

static bool answer_survives(const struct auth_answer *in, struct auth_answer *out)
{
	uint8_t body[16384];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	auth_put_answer(&w, in);
	assert_false(w.overflow);
	assert_true(w.len <= ipc_body_max(IPC_AUTH_ANSWER) && w.len <= ipc_body_max(IPC_PAM_ANSWER));
	struct wire_reader r = wire_reader_on(body, w.len);

	return auth_get_answer(&r, out);
}

static bool all_zero(const void *data, size_t len)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < len; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

static void test_ask_round_trip(void **state)
{
	struct auth_ask in = some_ask(), out;

	(void)state;
	assert_true(ask_survives(&in, &out));
	assert_memory_equal(&in, &out, sizeof in);
	memset(in.user, 'u', AUTH_TEXT_MAX);
	memset(in.password, 0xe4, AUTH_TEXT_MAX);
	memset(in.service, 's', sizeof in.service - 1);
	memset(in.listener, 'l', sizeof in.listener - 1);
	assert_true(ask_survives(&in, &out));
	assert_memory_equal(&in, &out, sizeof in);
	auth_ask_wipe(&out);
	assert_true(all_zero(&out, sizeof out));
}

static void test_ask_refused(void **state)
{
	static const struct {
		const char *service, *listener, *user, *password;
	} bad[] = {
		{"", "lan", "ann", "x"},
		{".", "lan", "ann", "x"},
		{"..", "lan", "ann", "x"},
		{".hidden", "lan", "ann", "x"},
		{"../shadow", "lan", "ann", "x"},
		{"a/b", "lan", "ann", "x"},
		{"a b", "lan", "ann", "x"},
		{"gatewayd", "l\nn", "ann", "x"},
		{"gatewayd", "lan", "", "x"},
		{"gatewayd", "lan", "ann\n", "x"},
		{"gatewayd", "lan", "a\x7fn", "x"},
		{"gatewayd", "lan", "ann", ""},
		{"gatewayd", "lan", "ann", "x\ty"},
	};
	struct auth_ask out;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct auth_ask in = some_ask();

		snprintf(in.service, sizeof in.service, "%s", bad[i].service);
		snprintf(in.listener, sizeof in.listener, "%s", bad[i].listener);
		snprintf(in.user, sizeof in.user, "%s", bad[i].user);
		snprintf(in.password, sizeof in.password, "%s", bad[i].password);
		memset(&out, 0xff, sizeof out);
		assert_false(ask_survives(&in, &out));
		assert_true(all_zero(&out, sizeof out));
	}
	struct auth_ask in = some_ask();

	in.client = (struct addr){0};
	assert_false(ask_survives(&in, &out));
}

/* Cut anywhere, or with a byte too many, a body is refused; and so are texts that hold a NUL or are too long. */
static void test_ask_lengths(void **state)
{
	struct auth_ask in = some_ask(), out;
	uint8_t body[2048];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	(void)state;
	auth_put_ask(&w, &in);
	wire_put_u8(&w, 0);
	for (size_t len = 0; len <= w.len; len++) {
		struct wire_reader r = wire_reader_on(body, len);

		assert_int_equal(auth_get_ask(&r, &out), len == w.len - 1);
	}
	for (size_t user_len = AUTH_TEXT_MAX; user_len <= AUTH_TEXT_MAX + 1; user_len++) {
		char user[AUTH_TEXT_MAX + 1];

		memset(user, 'u', sizeof user);
		w = wire_writer_on(body, sizeof body);
		wire_put_u64(&w, 1);
		wire_put_text(&w, "gatewayd");
		wire_put_text(&w, "lan");
		wire_put_addr(&w, &in.client);
		wire_put_bytes(&w, user, user_len);
		wire_put_bytes(&w, "a", 1);
		wire_put_u8(&w, 0);
		struct wire_reader r = wire_reader_on(body, w.len);

		assert_int_equal(auth_get_ask(&r, &out), user_len == AUTH_TEXT_MAX);
		user[3] = '\0';
		memcpy(body + w.len - 6 - user_len, user, user_len);
		r = wire_reader_on(body, w.len);
		assert_false(auth_get_ask(&r, &out));
	}
}

/* What is behind the last group is nobody's. */
static void assert_answers_equal(const struct auth_answer *a, const struct auth_answer *b)
{
	assert_memory_equal(a, b, offsetof(struct auth_answer, groups));
	for (unsigned i = 0; i < a->ngroups; i++)
		assert_string_equal(a->groups[i], b->groups[i]);
}

static void test_answer_round_trip(void **state)
{
	struct auth_answer in = some_answer(), out;

	(void)state;
	assert_true(answer_survives(&in, &out));
	assert_answers_equal(&in, &out);
	in.ngroups = AUTH_GROUPS_MAX;
	for (int i = 0; i < AUTH_GROUPS_MAX; i++)
		memset(in.groups[i], 'g', AUTH_GROUP_NAME_MAX);
	memset(in.user, 'u', AUTH_TEXT_MAX);
	assert_true(answer_survives(&in, &out));
	assert_answers_equal(&in, &out);
	in = (struct auth_answer){.id = 1, .verdict = AUTH_DENIED, .delay_us = AUTH_DELAY_MAX_US, .user = "ann"};
	memset(in.reason, 'r', AUTH_REASON_MAX);
	assert_true(answer_survives(&in, &out));
	assert_answers_equal(&in, &out);
}

static void test_answer_refused(void **state)
{
	struct auth_answer a, out;

	(void)state;
	a = some_answer();
	a.verdict = (enum auth_verdict)3;
	assert_false(answer_survives(&a, &out));
	assert_int_equal(out.verdict, AUTH_FAILED);
	a = some_answer();
	a.user[0] = '\0';
	assert_false(answer_survives(&a, &out));
	a = some_answer();
	a.groups[1][0] = '\n';
	assert_false(answer_survives(&a, &out));
	a = some_answer();
	a.groups[1][0] = '\0';
	assert_false(answer_survives(&a, &out));
	a = some_answer();
	a.verdict = AUTH_DENIED; /* groups, and no reason */
	assert_false(answer_survives(&a, &out));
	strcpy(a.reason, "wrong password");
	assert_false(answer_survives(&a, &out));
	a.ngroups = 0;
	assert_true(answer_survives(&a, &out));
	strcpy(a.reason, "two\nlines");
	assert_false(answer_survives(&a, &out));
	strcpy(a.reason, "terminal \x9b[2J");
	assert_false(answer_survives(&a, &out));
	strcpy(a.reason, "slow");
	a.delay_us = AUTH_DELAY_MAX_US + 1;
	assert_false(answer_survives(&a, &out));
}

/* A count of groups beyond the array is refused before any is read. */
static void test_answer_lengths(void **state)
{
	struct auth_answer in = some_answer(), out;
	uint8_t body[16384];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	(void)state;
	auth_put_answer(&w, &in);
	wire_put_u8(&w, 0);
	for (size_t len = 0; len <= w.len; len++) {
		struct wire_reader r = wire_reader_on(body, len);

		assert_int_equal(auth_get_answer(&r, &out), len == w.len - 1);
	}
	for (unsigned ngroups = AUTH_GROUPS_MAX; ngroups <= AUTH_GROUPS_MAX + 1; ngroups++) {
		w = wire_writer_on(body, sizeof body);
		wire_put_u64(&w, 1);
		wire_put_u8(&w, AUTH_OK);
		wire_put_u32(&w, 0);
		wire_put_text(&w, "ann");
		wire_put_text(&w, "");
		wire_put_u16(&w, (uint16_t)ngroups);
		for (unsigned i = 0; i < ngroups; i++)
			wire_put_text(&w, "g");
		struct wire_reader r = wire_reader_on(body, w.len);

		assert_int_equal(auth_get_answer(&r, &out), ngroups == AUTH_GROUPS_MAX);
	}
}

static void test_service(void **state)
{
	char longest[65];

	(void)state;
	memset(longest, 's', sizeof longest);
	longest[63] = '\0';
	assert_true(auth_service_valid(longest));
	longest[63] = 's';
	longest[64] = '\0';
	assert_false(auth_service_valid(longest));
	assert_true(auth_service_valid("gatewayd-lan_2.test"));
	assert_false(auth_service_valid("gateway\xc3\xa9"));
	assert_false(auth_service_valid("gatewayd "));
}

static void test_cancel(void **state)
{
	uint8_t body[16];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	uint64_t id;

	(void)state;
	auth_put_cancel(&w, UINT64_MAX);
	assert_true(w.len <= ipc_body_max(IPC_AUTH_CANCEL));
	struct wire_reader r = wire_reader_on(body, w.len);

	assert_true(auth_get_cancel(&r, &id));
	assert_true(id == UINT64_MAX);
	r = wire_reader_on(body, 7);
	assert_false(auth_get_cancel(&r, &id));
	r = wire_reader_on(body, 9);
	assert_false(auth_get_cancel(&r, &id));
}

static void test_command(void **state)
{
	uint8_t body[600];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct auth_command in = {.id = 7, .kind = AUTH_COMMAND_UNLOCK, .clients = {.addr = addr_v4(0x0a000000), .bits = 8}}, out;

	(void)state;
	memset(in.user, 'u', AUTH_TEXT_MAX);
	auth_put_command(&w, &in);
	assert_true(w.len <= ipc_body_max(IPC_AUTH_COMMAND));
	struct wire_reader r = wire_reader_on(body, w.len);

	assert_true(auth_get_command(&r, &out));
	assert_memory_equal(&out.clients, &in.clients, sizeof in.clients);
	assert_string_equal(out.user, in.user);
	for (size_t len = 0; len < w.len; len++) {
		r = wire_reader_on(body, len);
		assert_false(auth_get_command(&r, &out));
	}
	body[w.len - 1] = 33; /* bits of an IPv4 address */
	r = wire_reader_on(body, w.len);
	assert_false(auth_get_command(&r, &out));
	body[8] = AUTH_COMMANDS;
	body[w.len - 1] = 8;
	r = wire_reader_on(body, w.len);
	assert_false(auth_get_command(&r, &out));
	in.clients.addr.family = ADDR_NONE;
	in.user[0] = '\0';
	w = wire_writer_on(body, sizeof body);
	auth_put_command(&w, &in);
	r = wire_reader_on(body, w.len);
	assert_true(auth_get_command(&r, &out));
	assert_int_equal(out.clients.addr.family, ADDR_NONE);
}

static void test_news(void **state)
{
	uint8_t body[600];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct throttle_news in = {.step = THROTTLE_OVER,
				   .network = {.addr = addr_v4(0xc0000200), .bits = 24},
				   .failures = 9,
				   .refused = 5,
				   .lasted_us = 7,
				   .untold = 3},
			     out;

	(void)state;
	memset(in.user, 'u', AUTH_TEXT_MAX);
	auth_put_news(&w, &in);
	assert_true(w.len <= ipc_body_max(IPC_THROTTLED));
	struct wire_reader r = wire_reader_on(body, w.len);

	assert_true(auth_get_news(&r, &out));
	assert_memory_equal(&out.network, &in.network, sizeof in.network);
	assert_string_equal(out.user, in.user);
	assert_true(out.step == in.step && out.failures == 9 && out.refused == 5 && out.lasted_us == 7 && out.untold == 3);
	for (size_t len = 0; len < w.len; len++) {
		r = wire_reader_on(body, len);
		assert_false(auth_get_news(&r, &out));
	}
	body[0] = THROTTLE_STEPS;
	r = wire_reader_on(body, w.len);
	assert_false(auth_get_news(&r, &out));
	in.network.bits = 33;
	w = wire_writer_on(body, sizeof body);
	auth_put_news(&w, &in);
	r = wire_reader_on(body, w.len);
	assert_false(auth_get_news(&r, &out));
}

static void test_vouched(void **state)
{
	uint8_t body[2048];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct auth_ask in = {.id = 3, .service = "s", .listener = "l", .client = addr_v4(1), .user = "ann", .vouched = true}, out;

	(void)state;
	auth_put_ask(&w, &in);
	struct wire_reader r = wire_reader_on(body, w.len);

	assert_true(auth_get_ask(&r, &out));
	assert_true(out.vouched);
	body[w.len - 1] = 0; /* without a password, nobody has vouched */
	r = wire_reader_on(body, w.len);
	assert_false(auth_get_ask(&r, &out));
	body[w.len - 1] = 2;
	r = wire_reader_on(body, w.len);
	assert_false(auth_get_ask(&r, &out));
	strcpy(in.password, "x");
	w = wire_writer_on(body, sizeof body);
	auth_put_ask(&w, &in);
	r = wire_reader_on(body, w.len);
	assert_false(auth_get_ask(&r, &out));
}

static void test_gss_ask_and_step(void **state)
{
	static uint8_t body[70000], token[GSS_INPUT_MAX + 1];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct gss_ask in = {.id = 3, .service = "s", .client = addr_v4(1), .token = token, .token_len = GSS_INPUT_MAX}, out;
	struct gss_step step = {.id = 4, .token = token, .token_len = GSS_INPUT_MAX}, stepped;

	(void)state;
	memset(in.listener, 'l', sizeof in.listener - 1);
	gss_put_ask(&w, &in);
	assert_true(w.len <= ipc_body_max(IPC_GSS_ASK));
	struct wire_reader r = wire_reader_on(body, w.len);

	assert_true(gss_get_ask(&r, &out));
	assert_int_equal(out.token_len, GSS_INPUT_MAX);
	for (size_t cut = 0; cut < w.len; cut += cut < 200 ? 1 : 1009) {
		r = wire_reader_on(body, cut);
		assert_false(gss_get_ask(&r, &out));
	}
	w = wire_writer_on(body, sizeof body);
	gss_put_step(&w, &step);
	assert_true(w.len <= ipc_body_max(IPC_GSS_STEP));
	r = wire_reader_on(body, w.len);
	assert_true(gss_get_step(&r, &stepped));
	step.token_len = 0;
	w = wire_writer_on(body, sizeof body);
	gss_put_step(&w, &step);
	r = wire_reader_on(body, w.len);
	assert_false(gss_get_step(&r, &stepped));
	in.token_len = GSS_INPUT_MAX + 1;
	w = wire_writer_on(body, sizeof body);
	gss_put_ask(&w, &in);
	r = wire_reader_on(body, w.len);
	assert_false(gss_get_ask(&r, &out));
}

static bool takes_gss_answer(const struct gss_answer *in)
{
	static uint8_t body[98304];
	static struct gss_answer out;
	struct wire_writer w = wire_writer_on(body, sizeof body);

	gss_put_answer(&w, in);
	assert_false(w.overflow);
	assert_true(w.len <= ipc_body_max(IPC_GSS_ANSWER));
	struct wire_reader r = wire_reader_on(body, w.len);

	return gss_get_answer(&r, &out);
}

static void test_gss_answer(void **state)
{
	static uint8_t token[GSS_INPUT_MAX];
	static struct gss_answer a;

	(void)state;
	a = (struct gss_answer){.id = 1, .more = true, .token = token, .token_len = 1};
	assert_true(takes_gss_answer(&a));
	a.token_len = 0; /* more, and nothing to send */
	assert_false(takes_gss_answer(&a));
	a = (struct gss_answer){.id = 1, .token = token, .token_len = sizeof token, .context = token, .context_len = GSS_CONTEXT_MAX, .lifetime_s = 1};
	a.answer.verdict = AUTH_OK;
	memset(a.answer.user, 'u', AUTH_TEXT_MAX);
	memset(a.principal, 'p', AUTH_TEXT_MAX);
	a.answer.ngroups = AUTH_GROUPS_MAX;
	for (unsigned i = 0; i < AUTH_GROUPS_MAX; i++)
		memset(a.answer.groups[i], 'g', AUTH_GROUP_NAME_MAX);
	assert_true(takes_gss_answer(&a));
	a.lifetime_s = 0; /* a ticket that has ended */
	assert_false(takes_gss_answer(&a));
	a.lifetime_s = UINT32_MAX;
	a.context_len = 0; /* a success without its context */
	assert_false(takes_gss_answer(&a));
	a.context_len = 5;
	a.principal[0] = '\0'; /* of nobody */
	assert_false(takes_gss_answer(&a));
	strcpy(a.principal, "a\n");
	assert_false(takes_gss_answer(&a));
	a = (struct gss_answer){.answer = {.verdict = AUTH_DENIED, .user = "-", .reason = "no"}};
	assert_true(takes_gss_answer(&a));
	a.context = token;
	a.context_len = 1; /* a refusal with a context */
	assert_false(takes_gss_answer(&a));
}

static bool takes_groups(const struct auth_asked_groups *in, bool told)
{
	static struct auth_asked_groups out;
	uint8_t body[8192], again[8192];
	struct wire_writer w = wire_writer_on(body, sizeof body), same = wire_writer_on(again, sizeof again);

	(told ? auth_put_groups_told : auth_put_groups_ask)(&w, in);
	assert_false(w.overflow);
	for (size_t len = 0; len <= w.len + 1; len++) {
		struct wire_reader r = wire_reader_on(body, len);
		bool taken = (told ? auth_get_groups_told : auth_get_groups_ask)(&r, &out);

		assert_true(!taken || len == w.len);
		if (!taken)
			continue;
		(told ? auth_put_groups_told : auth_put_groups_ask)(&same, &out);
		assert_int_equal(same.len, w.len);
		assert_memory_equal(again, body, w.len);
		return true;
	}
	return false;
}

static void test_groups(void **state)
{
	static struct auth_asked_groups a;

	(void)state;
	a = (struct auth_asked_groups){.id = 9, .n = 2, .names = {"hr", "two words"}, .states = {AUTH_GROUP_KNOWN, AUTH_GROUP_UNTOLD}};
	assert_true(takes_groups(&a, false) && takes_groups(&a, true));
	a.states[1] = AUTH_GROUP_STATES;
	assert_false(takes_groups(&a, true));
	strcpy(a.names[1], "a\tb");
	assert_false(takes_groups(&a, false));
	a.names[1][0] = '\0';
	assert_false(takes_groups(&a, false));
	a.n = 0;
	assert_false(takes_groups(&a, false) || takes_groups(&a, true));
	a.n = AUTH_ASKED_GROUPS_MAX;
	for (unsigned i = 0; i < a.n; i++) {
		memset(a.names[i], 'g', AUTH_GROUP_NAME_MAX);
		a.names[i][AUTH_GROUP_NAME_MAX] = '\0';
		a.states[i] = (uint8_t)(i % AUTH_GROUP_STATES);
	}
	assert_true(takes_groups(&a, false) && takes_groups(&a, true)); /* they fit their messages */
	uint8_t many[16] = {[8] = AUTH_ASKED_GROUPS_MAX + 1};
	struct wire_reader r = wire_reader_on(many, sizeof many);

	assert_false(auth_get_groups_told(&r, &a));
}

static void test_text(void **state)
{
	uint8_t text[AUTH_TEXT_MAX + 1];

	(void)state;
	memset(text, 'x', sizeof text);
	assert_string_equal(auth_text_refused(text, 0), "is empty");
	assert_null(auth_text_refused(text, 1));
	assert_null(auth_text_refused(text, AUTH_TEXT_MAX));
	assert_string_equal(auth_text_refused(text, AUTH_TEXT_MAX + 1), "is longer than 255 octets");
	for (unsigned c = 0; c < 256; c++) {
		const char *why;

		text[2] = (uint8_t)c;
		why = auth_text_refused(text, 3);
		if (c == 0)
			assert_string_equal(why, "holds a NUL");
		else if (c < 0x20 || c == 0x7f)
			assert_string_equal(why, "holds a control byte");
		else
			assert_null(why);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ask_round_trip), cmocka_unit_test(test_ask_refused),
		cmocka_unit_test(test_ask_lengths),    cmocka_unit_test(test_answer_round_trip),
		cmocka_unit_test(test_answer_refused), cmocka_unit_test(test_answer_lengths),
		cmocka_unit_test(test_service),	       cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_vouched), cmocka_unit_test(test_news), cmocka_unit_test(test_gss_ask_and_step), cmocka_unit_test(test_gss_answer),
		cmocka_unit_test(test_command),       cmocka_unit_test(test_groups),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
