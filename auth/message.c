#include "config.h"

#include "auth/auth.h"

#include <string.h>

/* ---- what a text may hold ---------------------------------------------------------------------------------------- */

static bool is_control(uint8_t c)
{
	return c < 0x20 || c == 0x7f;
}

static bool has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if (is_control((uint8_t)*text))
			return true;
	return false;
}

const char *auth_text_refused(const uint8_t *text, size_t len)
{
	if (len == 0)
		return "is empty";
	if (len > AUTH_TEXT_MAX)
		return "is longer than 255 octets";
	if (memchr(text, '\0', len) != NULL)
		return "holds a NUL";
	for (size_t i = 0; i < len; i++)
		if (is_control(text[i]))
			return "holds a control byte";
	return NULL;
}

static bool client_text_ok(const char *text)
{
	return auth_text_refused((const uint8_t *)text, strlen(text)) == NULL;
}

bool auth_service_valid(const char *service)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

	size_t len = strspn(service, allowed);

	return len > 0 && len < sizeof((struct auth_ask *)0)->service && service[0] != '.' && service[len] == '\0';
}

static bool reason_ok(const char *reason)
{
	for (; *reason != '\0'; reason++)
		if (is_control((uint8_t)*reason) || (uint8_t)*reason > 0x7e)
			return false;
	return true;
}

/* ---- asks -------------------------------------------------------------------------------------------------------- */

void auth_put_ask(struct wire_writer *w, const struct auth_ask *a)
{
	wire_put_u64(w, a->id);
	wire_put_text(w, a->service);
	wire_put_text(w, a->listener);
	wire_put_addr(w, &a->client);
	wire_put_text(w, a->user);
	wire_put_text(w, a->password);
	wire_put_u8(w, a->vouched);
}

static bool ask_ok(const struct auth_ask *a)
{
	return auth_service_valid(a->service) && !has_control(a->listener) && a->client.family != ADDR_NONE &&
	       client_text_ok(a->user) && (a->vouched ? a->password[0] == '\0' : client_text_ok(a->password));
}

bool auth_get_ask(struct wire_reader *r, struct auth_ask *a)
{
	memset(a, 0, sizeof *a);
	a->id = wire_get_u64(r);
	wire_get_text(r, a->service, sizeof a->service);
	wire_get_text(r, a->listener, sizeof a->listener);
	wire_get_addr(r, &a->client);
	wire_get_text(r, a->user, sizeof a->user);
	wire_get_text(r, a->password, sizeof a->password);
	uint8_t vouched = wire_get_u8(r);

	a->vouched = vouched == 1;
	r->bad |= vouched > 1;
	if (wire_done(r) && ask_ok(a))
		return true;
	auth_ask_wipe(a);
	return false;
}

void auth_ask_wipe(struct auth_ask *a)
{
	explicit_bzero(a, sizeof *a);
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

void auth_put_answer(struct wire_writer *w, const struct auth_answer *a)
{
	wire_put_u64(w, a->id);
	wire_put_u8(w, (uint8_t)a->verdict);
	wire_put_u32(w, a->delay_us);
	wire_put_text(w, a->user);
	wire_put_text(w, a->reason);
	wire_put_u16(w, a->ngroups);
	for (unsigned i = 0; i < a->ngroups && i < AUTH_GROUPS_MAX; i++)
		wire_put_text(w, a->groups[i]);
}

bool auth_group_valid(const char *name)
{
	return name[0] != '\0' && strlen(name) <= AUTH_GROUP_NAME_MAX && !has_control(name);
}

static bool groups_ok(const struct auth_answer *a)
{
	for (unsigned i = 0; i < a->ngroups; i++)
		if (!auth_group_valid(a->groups[i]))
			return false;
	return true;
}

static bool answer_ok(const struct auth_answer *a)
{
	bool granted = a->verdict == AUTH_OK;

	return a->verdict < AUTH_VERDICTS && a->delay_us <= AUTH_DELAY_MAX_US && client_text_ok(a->user) &&
	       reason_ok(a->reason) && granted == (a->reason[0] == '\0') && (granted || a->ngroups == 0) &&
	       groups_ok(a);
}

/* Room for groups that are not there is left as it is: it is most of an answer. */
static void clear_answer(struct auth_answer *a)
{
	memset(a, 0, offsetof(struct auth_answer, groups));
}

static void get_answer(struct wire_reader *r, struct auth_answer *a)
{
	clear_answer(a);
	a->id = wire_get_u64(r);
	a->verdict = (enum auth_verdict)wire_get_u8(r);
	a->delay_us = wire_get_u32(r);
	wire_get_text(r, a->user, sizeof a->user);
	wire_get_text(r, a->reason, sizeof a->reason);
	a->ngroups = wire_get_u16(r);
	if (a->ngroups > AUTH_GROUPS_MAX)
		r->bad = true;
	for (unsigned i = 0; i < a->ngroups && !r->bad; i++)
		wire_get_text(r, a->groups[i], sizeof a->groups[i]);
}

bool auth_get_answer(struct wire_reader *r, struct auth_answer *a)
{
	get_answer(r, a);
	if (wire_done(r) && answer_ok(a))
		return true;
	clear_answer(a);
	a->verdict = AUTH_FAILED;
	return false;
}

/* ---- cancels ----------------------------------------------------------------------------------------------------- */

void auth_put_cancel(struct wire_writer *w, uint64_t id)
{
	wire_put_u64(w, id);
}

bool auth_get_cancel(struct wire_reader *r, uint64_t *id)
{
	*id = wire_get_u64(r);
	return wire_done(r);
}

/* ---- names of users of this host ------------------------------------------------------------------------------------ */

bool auth_login_valid(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@+$\\";
	size_t len = strspn(name, allowed);

	return len > 0 && len <= AUTH_LOGIN_MAX && name[len] == '\0';
}

void auth_put_login_ask(struct wire_writer *w, const struct auth_login *l)
{
	wire_put_u64(w, l->id);
	wire_put_u32(w, l->uid);
}

bool auth_get_login_ask(struct wire_reader *r, struct auth_login *l)
{
	memset(l, 0, sizeof *l);
	l->id = wire_get_u64(r);
	l->uid = wire_get_u32(r);
	return wire_done(r);
}

void auth_put_login(struct wire_writer *w, const struct auth_login *l)
{
	auth_put_login_ask(w, l);
	wire_put_text(w, l->name);
}

bool auth_get_login(struct wire_reader *r, struct auth_login *l)
{
	memset(l, 0, sizeof *l);
	l->id = wire_get_u64(r);
	l->uid = wire_get_u32(r);
	wire_get_text(r, l->name, sizeof l->name);
	return wire_done(r) && (l->name[0] == '\0' || auth_login_valid(l->name));
}

/* ---- groups of this host -------------------------------------------------------------------------------------------- */

void auth_put_groups_ask(struct wire_writer *w, const struct auth_asked_groups *a)
{
	wire_put_u64(w, a->id);
	wire_put_u16(w, a->n);
	for (unsigned i = 0; i < a->n; i++)
		wire_put_text(w, a->names[i]);
}

static bool get_groups_head(struct wire_reader *r, struct auth_asked_groups *a)
{
	a->id = wire_get_u64(r);
	a->n = wire_get_u16(r);
	r->bad |= a->n == 0 || a->n > AUTH_ASKED_GROUPS_MAX;
	return !r->bad;
}

bool auth_get_groups_ask(struct wire_reader *r, struct auth_asked_groups *a)
{
	bool valid = get_groups_head(r, a);

	for (unsigned i = 0; valid && i < a->n; i++) {
		wire_get_text(r, a->names[i], sizeof a->names[i]);
		valid = !r->bad && auth_group_valid(a->names[i]);
	}
	return valid && wire_done(r);
}

void auth_put_groups_told(struct wire_writer *w, const struct auth_asked_groups *a)
{
	wire_put_u64(w, a->id);
	wire_put_u16(w, a->n);
	for (unsigned i = 0; i < a->n; i++)
		wire_put_u8(w, a->states[i]);
}

bool auth_get_groups_told(struct wire_reader *r, struct auth_asked_groups *a)
{
	bool valid = get_groups_head(r, a);

	for (unsigned i = 0; valid && i < a->n; i++) {
		a->states[i] = wire_get_u8(r);
		valid = a->states[i] < AUTH_GROUP_STATES;
	}
	return valid && wire_done(r);
}

/* ---- GSSAPI --------------------------------------------------------------------------------------------------------- */

void gss_put_ask(struct wire_writer *w, const struct gss_ask *a)
{
	wire_put_u64(w, a->id);
	wire_put_text(w, a->service);
	wire_put_text(w, a->listener);
	wire_put_addr(w, &a->client);
	wire_put_bytes(w, a->token, a->token_len);
}

bool gss_get_ask(struct wire_reader *r, struct gss_ask *a)
{
	memset(a, 0, sizeof *a);
	a->id = wire_get_u64(r);
	wire_get_text(r, a->service, sizeof a->service);
	wire_get_text(r, a->listener, sizeof a->listener);
	wire_get_addr(r, &a->client);
	a->token = wire_get_bytes(r, GSS_INPUT_MAX, &a->token_len);
	return wire_done(r) && auth_service_valid(a->service) && !has_control(a->listener) && a->client.family != ADDR_NONE &&
	       a->token_len > 0;
}

void gss_put_step(struct wire_writer *w, const struct gss_step *s)
{
	wire_put_u64(w, s->id);
	wire_put_bytes(w, s->token, s->token_len);
}

bool gss_get_step(struct wire_reader *r, struct gss_step *s)
{
	memset(s, 0, sizeof *s);
	s->id = wire_get_u64(r);
	s->token = wire_get_bytes(r, GSS_INPUT_MAX, &s->token_len);
	return wire_done(r) && s->token_len > 0;
}

void gss_put_answer(struct wire_writer *w, const struct gss_answer *a)
{
	wire_put_u64(w, a->id);
	wire_put_u8(w, a->more);
	wire_put_text(w, a->principal);
	wire_put_u32(w, a->lifetime_s);
	wire_put_bytes(w, a->token, a->token_len);
	wire_put_bytes(w, a->context, a->context_len);
	if (!a->more)
		auth_put_answer(w, &a->answer);
}

/* The verdict's user may be unknown: the principal maps to none. */
static bool gss_answer_ok(const struct gss_answer *a)
{
	bool granted = !a->more && a->answer.verdict == AUTH_OK;

	if (!reason_ok(a->principal) || granted != (a->context_len > 0))
		return false;
	if (a->more)
		return a->token_len > 0;
	if (granted && a->lifetime_s == 0)
		return false;
	return answer_ok(&a->answer) && (!granted || a->principal[0] != '\0');
}

bool gss_get_answer(struct wire_reader *r, struct gss_answer *a)
{
	memset(a, 0, sizeof *a);
	a->id = wire_get_u64(r);
	uint8_t more = wire_get_u8(r);

	a->more = more == 1;
	r->bad |= more > 1;
	wire_get_text(r, a->principal, sizeof a->principal);
	a->lifetime_s = wire_get_u32(r);
	a->token = wire_get_bytes(r, GSS_INPUT_MAX, &a->token_len);
	a->context = wire_get_bytes(r, GSS_CONTEXT_MAX, &a->context_len);
	if (!a->more)
		get_answer(r, &a->answer);
	return wire_done(r) && gss_answer_ok(a);
}

/* ---- limits --------------------------------------------------------------------------------------------------------- */

void auth_put_admit(struct wire_writer *w, const struct auth_admit *a)
{
	wire_put_u64(w, a->id);
	wire_put_u16(w, a->listener);
	wire_put_u8(w, a->begun);
	wire_put_addr(w, &a->client);
	wire_put_text(w, a->user);
}

bool auth_get_admit(struct wire_reader *r, struct auth_admit *a)
{
	a->id = wire_get_u64(r);
	a->listener = wire_get_u16(r);
	a->begun = wire_get_u8(r) != 0;
	wire_get_addr(r, &a->client);
	wire_get_text(r, a->user, sizeof a->user);
	return wire_done(r) && a->id != 0 && a->client.family != ADDR_NONE;
}

void auth_put_admit_answer(struct wire_writer *w, uint64_t id, const char *why, bool full)
{
	wire_put_u64(w, id);
	wire_put_text(w, why);
	wire_put_u8(w, full);
}

bool auth_get_admit_answer(struct wire_reader *r, uint64_t *id, char why[AUTH_REASON_MAX + 1], bool *full)
{
	*id = wire_get_u64(r);
	wire_get_text(r, why, AUTH_REASON_MAX + 1);
	*full = wire_get_u8(r) != 0;
	return wire_done(r);
}

/* ---- administrators ------------------------------------------------------------------------------------------------- */

void auth_put_news(struct wire_writer *w, const struct throttle_news *n)
{
	wire_put_u8(w, (uint8_t)n->step);
	wire_put_addr(w, &n->network.addr);
	wire_put_u8(w, n->network.bits);
	wire_put_text(w, n->user);
	wire_put_u32(w, n->failures);
	wire_put_u32(w, n->wait_ms);
	wire_put_u64(w, n->refused);
	wire_put_u64(w, (uint64_t)n->lasted_us);
	wire_put_u64(w, n->untold);
}

bool auth_get_news(struct wire_reader *r, struct throttle_news *n)
{
	memset(n, 0, sizeof *n);
	n->step = (enum throttle_step)wire_get_u8(r);
	wire_get_addr(r, &n->network.addr);
	n->network.bits = wire_get_u8(r);
	wire_get_text(r, n->user, sizeof n->user);
	n->failures = wire_get_u32(r);
	n->wait_ms = wire_get_u32(r);
	n->refused = wire_get_u64(r);
	n->lasted_us = (int64_t)wire_get_u64(r);
	n->untold = wire_get_u64(r);
	return wire_done(r) && n->step < THROTTLE_STEPS && n->network.addr.family != ADDR_NONE &&
	       n->network.bits <= addr_bits(&n->network.addr) && !has_control(n->user) && n->lasted_us >= 0;
}

void auth_put_command(struct wire_writer *w, const struct auth_command *c)
{
	wire_put_u64(w, c->id);
	wire_put_u8(w, (uint8_t)c->kind);
	wire_put_text(w, c->user);
	wire_put_u8(w, c->clients.addr.family != ADDR_NONE);
	if (c->clients.addr.family != ADDR_NONE) {
		wire_put_addr(w, &c->clients.addr);
		wire_put_u8(w, c->clients.bits);
	}
}

bool auth_get_command(struct wire_reader *r, struct auth_command *c)
{
	memset(c, 0, sizeof *c);
	c->id = wire_get_u64(r);
	c->kind = (enum auth_command_kind)wire_get_u8(r);
	wire_get_text(r, c->user, sizeof c->user);
	if (wire_get_u8(r) != 0) {
		wire_get_addr(r, &c->clients.addr);
		c->clients.bits = wire_get_u8(r);
	}
	return wire_done(r) && c->kind < AUTH_COMMANDS && !has_control(c->user) && c->clients.bits <= addr_bits(&c->clients.addr);
}
