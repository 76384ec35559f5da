#include "config.h"

#include "auth/gss.h"

#include <assert.h>
#include <fcntl.h>
#include <gssapi/gssapi_ext.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>
#include <profile.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "common/sealed.h"
#include "common/text.h"

#define BUCKETS 1024
#define ROUNDS_MAX 8 /* Kerberos takes one or two */
#define KRB5_CONF_MAX (1024 * 1024)
#define KRB5_CONF_FD 64 /* free while a process starts */
#define MEMORY_KEYTAB "MEMORY:gatewayd"

struct context {
	LIST_ENTRY(context) next;
	uint64_t id;
	gss_ctx_id_t handle;
	unsigned rounds;
};

struct gss_server {
	struct gss_server_options options;
	gss_cred_id_t credential;
	LIST_HEAD(, context) buckets[BUCKETS];
	size_t count;
	gss_buffer_desc token, exported; /* of the last answer */
};

/* ---- the keytab ------------------------------------------------------------------------------------------------------ */

/* Whatever is open stays open: a keytab in memory lives as long as somebody has a handle of it. */
static krb5_context kerberos;
static krb5_keytab in_memory;

static int krb5_failed(struct err *why, krb5_error_code code, const char *what, const char *name)
{
	const char *text = krb5_get_error_message(kerberos, code);

	err_set(why, "%s %s: %s", what, name, text);
	krb5_free_error_message(kerberos, text);
	return -1;
}

/* What krb5.conf says of realms. */
struct realms {
	profile_t profile;
	char *preset, **named;
};

static void realms_read(struct realms *r)
{
	static const char *const section[] = {"realms", NULL};

	*r = (struct realms){0};
	if (krb5_get_profile(kerberos, &r->profile) != 0)
		return;
	profile_get_string(r->profile, "libdefaults", "default_realm", NULL, NULL, &r->preset);
	if (profile_get_subsection_names(r->profile, (const char **)(uintptr_t)section, &r->named) != 0)
		r->named = NULL;
}

static void realms_clear(struct realms *r)
{
	profile_free_list(r->named);
	profile_release_string(r->preset);
	if (r->profile != NULL)
		profile_release(r->profile);
}

static bool realms_know(const struct realms *r, const krb5_data *realm)
{
	bool known = r->preset == NULL || (strlen(r->preset) == realm->length && memcmp(r->preset, realm->data, realm->length) == 0);

	for (size_t i = 0; !known && r->named != NULL && r->named[i] != NULL; i++)
		known = strlen(r->named[i]) == realm->length && memcmp(r->named[i], realm->data, realm->length) == 0;
	return known;
}

static int copy_entries(krb5_keytab from, const char *name, struct err *why)
{
	krb5_kt_cursor cursor;
	krb5_keytab_entry entry;
	unsigned n = 0, usable = 0;
	struct realms realms;
	krb5_error_code code = krb5_kt_start_seq_get(kerberos, from, &cursor);

	if (code != 0)
		return krb5_failed(why, code, "cannot read gssapi-keytab", name);
	realms_read(&realms);
	while ((code = krb5_kt_next_entry(kerberos, from, &entry, &cursor)) == 0) {
		usable += realms_know(&realms, krb5_princ_realm(kerberos, entry.principal));
		code = krb5_kt_add_entry(kerberos, in_memory, &entry);
		krb5_free_keytab_entry_contents(kerberos, &entry);
		if (code != 0)
			break;
		n++;
	}
	krb5_kt_end_seq_get(kerberos, from, &cursor);
	realms_clear(&realms);
	if (code != KRB5_KT_END)
		return krb5_failed(why, code, "cannot read gssapi-keytab", name);
	if (n == 0)
		return err_set(why, "gssapi-keytab %s holds no key", name);
	if (usable == 0)
		return err_set(why, "gssapi-keytab %s holds keys of realms only that krb5.conf does not know: it is another host's, or "
				    "[realms] there lacks its realm", name);
	return 0;
}

int gss_use_krb5_conf(const char *path, struct err *why)
{
	char *text = malloc(KRB5_CONF_MAX + 1), name[32];
	int in = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), copy = -1;
	ssize_t n = 0;
	size_t len = 0;

	while (text != NULL && in >= 0 && len <= KRB5_CONF_MAX && (n = read(in, text + len, KRB5_CONF_MAX + 1 - len)) > 0)
		len += (size_t)n;
	if (text == NULL || in < 0 || n < 0)
		err_set_errno(why, "cannot read gssapi-krb5-conf %s", path);
	else if (len > KRB5_CONF_MAX)
		err_set(why, "gssapi-krb5-conf %s has more than %d bytes", path, KRB5_CONF_MAX);
	else
		copy = sealed_create("gatewayd-krb5.conf", text, len, why);
	if (in >= 0)
		close(in);
	free(text);
	if (copy < 0)
		return -1;
	/* Of one name in all processes: an exported context tells it, and is imported with it. */
	if (dup3(copy, KRB5_CONF_FD, O_CLOEXEC) < 0) {
		err_set_errno(why, "cannot keep gssapi-krb5-conf %s", path);
		close(copy);
		return -1;
	}
	close(copy);
	snprintf(name, sizeof name, "/proc/self/fd/%d", KRB5_CONF_FD);
	return setenv("KRB5_CONFIG", name, 1) == 0 ? 0 : err_set(why, "out of memory");
}

int gss_server_read_keytab(const char *keytab, const char *krb5_conf, struct err *why)
{
	krb5_keytab from = NULL;
	krb5_error_code code;
	char name[4200];
	int rc;

	if (gss_use_krb5_conf(krb5_conf, why) != 0)
		return -1;
	code = krb5_init_context(&kerberos);
	if (code != 0)
		return err_set(why, "cannot use Kerberos: gssapi-krb5-conf %s is not valid (error %ld)", krb5_conf, (long)code);
	snprintf(name, sizeof name, "FILE:%s", keytab);
	code = krb5_kt_resolve(kerberos, name, &from);
	if (code == 0)
		code = krb5_kt_resolve(kerberos, MEMORY_KEYTAB, &in_memory);
	if (code != 0)
		return krb5_failed(why, code, "cannot open gssapi-keytab", keytab);
	rc = copy_entries(from, keytab, why);
	krb5_kt_close(kerberos, from);
	return rc;
}

/* ---- what GSSAPI says --------------------------------------------------------------------------------------------- */

void gss_describe(uint32_t major, uint32_t minor, char *out, size_t size)
{
	gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
	OM_uint32 more = 0, ignored;
	bool mechanism = minor != 0;

	if (gss_display_status(&ignored, mechanism ? minor : major, mechanism ? GSS_C_MECH_CODE : GSS_C_GSS_CODE,
			       GSS_C_NO_OID, &more, &text) != GSS_S_COMPLETE ||
	    text.length == 0)
		snprintf(out, size, "error %#x, %#x", (unsigned)major, (unsigned)minor);
	else
		text_escape(text.value, text.length, out, size);
	gss_release_buffer(&ignored, &text);
}

__attribute__((format(printf, 3, 4))) static void settle(struct gss_answer *out, enum auth_verdict verdict, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	out->answer.verdict = verdict;
	text_escape(text, strlen(text), out->answer.reason, sizeof out->answer.reason);
}

/* What is wrong with a token, or with the ticket in it.  All else is for the administrator to mend: files, keys, clocks. */
static bool is_of_the_client(OM_uint32 major, OM_uint32 minor)
{
	static const krb5_error_code codes[] = {
		KRB5KRB_AP_ERR_REPEAT,	KRB5KRB_AP_ERR_TKT_EXPIRED, KRB5KRB_AP_ERR_TKT_INVALID, KRB5KRB_AP_ERR_BAD_INTEGRITY,
		KRB5KRB_AP_ERR_MODIFIED, KRB5KRB_AP_ERR_BADMATCH,   KRB5KRB_AP_ERR_BADVERSION,	KRB5KRB_AP_ERR_MSG_TYPE,
		KRB5KRB_AP_ERR_BADADDR,	KRB5KRB_AP_ERR_INAPP_CKSUM, KRB5_BADMSGTYPE,
	};

	switch (GSS_ROUTINE_ERROR(major)) {
	case GSS_S_DEFECTIVE_TOKEN:
	case GSS_S_BAD_MECH:
	case GSS_S_BAD_SIG:
	case GSS_S_BAD_BINDINGS:
		return true;
	default:
		break;
	}
	if (major & (GSS_S_DUPLICATE_TOKEN | GSS_S_OLD_TOKEN))
		return true;
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		if ((OM_uint32)codes[i] == minor)
			return true;
	return false;
}

/* ---- contexts ------------------------------------------------------------------------------------------------------ */

struct gss_server *gss_server_new(const struct gss_server_options *options, struct err *why)
{
	struct gss_server *s = calloc(1, sizeof *s);
	gss_OID_set_desc only_krb5 = {.count = 1, .elements = (gss_OID)(uintptr_t)gss_mech_krb5};
	OM_uint32 major, minor;
	char text[256];

	if (s == NULL) {
		err_set(why, "out of memory");
		return NULL;
	}
	s->options = *options;
	krb5_gss_register_acceptor_identity(MEMORY_KEYTAB);
	major = gss_acquire_cred(&minor, GSS_C_NO_NAME, GSS_C_INDEFINITE, &only_krb5, GSS_C_ACCEPT, &s->credential, NULL, NULL);
	if (GSS_ERROR(major)) {
		gss_describe(major, minor, text, sizeof text);
		err_set(why, "cannot use the keys of gssapi-keytab: %s", text);
		free(s);
		return NULL;
	}
	/* Plugins and rules for names are loaded when a name is first mapped. */
	gss_buffer_desc nobody = {.length = 6, .value = (char *)(uintptr_t)"nobody"}, mapped = GSS_C_EMPTY_BUFFER;
	gss_name_t name = GSS_C_NO_NAME;

	if (gss_import_name(&minor, &nobody, GSS_C_NT_USER_NAME, &name) == GSS_S_COMPLETE)
		gss_localname(&minor, name, (gss_OID)(uintptr_t)gss_mech_krb5, &mapped);
	gss_release_buffer(&minor, &mapped);
	gss_release_name(&minor, &name);
	return s;
}

static struct context *context_of(struct gss_server *s, uint64_t id)
{
	struct context *c;

	LIST_FOREACH (c, &s->buckets[id % BUCKETS], next)
		if (c->id == id)
			return c;
	return NULL;
}

static struct context *context_new(struct gss_server *s, uint64_t id)
{
	struct context *c = s->count >= s->options.contexts_max ? NULL : calloc(1, sizeof *c);

	if (c == NULL)
		return NULL;
	c->id = id;
	c->handle = GSS_C_NO_CONTEXT;
	LIST_INSERT_HEAD(&s->buckets[id % BUCKETS], c, next);
	s->count++;
	return c;
}

static void context_free(struct gss_server *s, struct context *c)
{
	OM_uint32 minor;

	LIST_REMOVE(c, next);
	s->count--;
	if (c->handle != GSS_C_NO_CONTEXT)
		gss_delete_sec_context(&minor, &c->handle, GSS_C_NO_BUFFER);
	free(c);
}

void gss_server_drop(struct gss_server *s, uint64_t id)
{
	struct context *c = context_of(s, id);

	if (c != NULL)
		context_free(s, c);
}

void gss_server_drop_all(struct gss_server *s)
{
	struct context *c;

	for (size_t i = 0; i < BUCKETS; i++)
		while ((c = LIST_FIRST(&s->buckets[i])) != NULL)
			context_free(s, c);
}

static void wipe(gss_buffer_t buffer)
{
	OM_uint32 minor;

	if (buffer->length > 0)
		explicit_bzero(buffer->value, buffer->length);
	gss_release_buffer(&minor, buffer);
}

void gss_server_clean(struct gss_server *s)
{
	wipe(&s->token);
	wipe(&s->exported);
}

/* ---- one step ----------------------------------------------------------------------------------------------------- */

static void fold(char *text)
{
	for (; *text != '\0'; text++)
		if (*text >= 'A' && *text <= 'Z')
			*text = (char)(*text - 'A' + 'a');
}

static void name_principal(struct gss_answer *out, gss_name_t name)
{
	gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
	OM_uint32 minor;

	if (gss_display_name(&minor, name, &text, NULL) == GSS_S_COMPLETE)
		text_escape(text.value, text.length, out->principal, sizeof out->principal);
	gss_release_buffer(&minor, &text);
}

/* The user that the principal maps to, by auth_to_local of krb5.conf; false with the verdict if there is none. */
static bool map_user(const struct gss_server *s, struct gss_answer *out, gss_name_t name)
{
	gss_buffer_desc local = GSS_C_EMPTY_BUFFER;
	OM_uint32 minor, major = gss_localname(&minor, name, (gss_OID)(uintptr_t)gss_mech_krb5, &local);
	bool ok = major == GSS_S_COMPLETE && auth_text_refused(local.value, local.length) == NULL;

	if (ok) {
		memcpy(out->answer.user, local.value, local.length);
		out->answer.user[local.length] = '\0';
		if (s->options.fold_case)
			fold(out->answer.user);
	} else {
		settle(out, AUTH_DENIED, "the principal %s maps to no user (auth_to_local in krb5.conf)", out->principal);
	}
	gss_release_buffer(&minor, &local);
	return ok;
}

/* The context is established: who it is, and the context itself for the worker. */
static void complete(struct gss_server *s, struct context *c, gss_name_t name, OM_uint32 flags, OM_uint32 lifetime,
		     struct gss_answer *out)
{
	OM_uint32 major, minor;
	char text[200];

	name_principal(out, name);
	if (!(flags & GSS_C_INTEG_FLAG)) {
		settle(out, AUTH_DENIED, "the client's context has no integrity");
		return;
	}
	if (lifetime == 0) { /* only GSS_C_INDEFINITE means that it does not end */
		settle(out, AUTH_DENIED, "the client's ticket has expired");
		return;
	}
	if (out->principal[0] == '\0' || !map_user(s, out, name))
		return;
	major = gss_export_sec_context(&minor, &c->handle, &s->exported);
	if (GSS_ERROR(major) || s->exported.length > GSS_CONTEXT_MAX) {
		gss_describe(major, minor, text, sizeof text);
		settle(out, AUTH_FAILED, "the established context cannot be handed on: %s", text);
		return;
	}
	out->lifetime_s = lifetime;
	out->context = s->exported.value;
	out->context_len = s->exported.length;
	out->answer.verdict = AUTH_OK;
	out->answer.reason[0] = '\0';
}

static void step(struct gss_server *s, struct context *c, const struct gss_step *in, struct gss_answer *out)
{
	gss_buffer_desc input = {.length = in->token_len, .value = (void *)(uintptr_t)in->token};
	OM_uint32 major, minor, ignored, flags = 0, lifetime = 0;
	gss_name_t name = GSS_C_NO_NAME;
	char text[200];

	major = gss_accept_sec_context(&minor, &c->handle, s->credential, &input, GSS_C_NO_CHANNEL_BINDINGS, &name, NULL,
				       &s->token, &flags, &lifetime, NULL);
	if (GSS_ERROR(major) || s->token.length > GSS_INPUT_MAX) {
		gss_describe(major, minor, text, sizeof text);
		settle(out, is_of_the_client(major, minor) || !GSS_ERROR(major) ? AUTH_DENIED : AUTH_FAILED, "Kerberos: %s", text);
		wipe(&s->token); /* a client that is refused gets an abort, and nothing else */
	} else if (major & GSS_S_CONTINUE_NEEDED) {
		out->more = s->token.length > 0;
		if (!out->more)
			settle(out, AUTH_FAILED, "Kerberos wants more and has nothing to say");
	} else {
		complete(s, c, name, flags, lifetime, out);
	}
	if (out->more || out->answer.verdict == AUTH_OK) {
		out->token = s->token.value;
		out->token_len = s->token.length;
	}
	gss_release_name(&ignored, &name);
}

void gss_server_step(struct gss_server *s, const struct gss_step *in, struct gss_answer *out)
{
	struct context *c = context_of(s, in->id);

	gss_server_clean(s);
	memset(out, 0, sizeof *out);
	out->id = in->id;
	strcpy(out->answer.user, "-"); /* nobody yet */
	if (c == NULL)
		c = context_new(s, in->id);
	if (c == NULL) {
		settle(out, AUTH_FAILED, "too many GSSAPI log-ins are under way");
		return;
	}
	if (++c->rounds > ROUNDS_MAX)
		settle(out, AUTH_DENIED, "the GSSAPI exchange does not end");
	else
		step(s, c, in, out);
	if (!out->more)
		context_free(s, c);
}
