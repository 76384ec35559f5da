/* gss-bench SERVICE SECONDS: what libgssapi itself does with messages of 16 KiB, both ends in this process: prints for each level
 * "LEVEL BYTES-PER-CPU-SECOND", made once (gss_wrap) and opened once (gss_unwrap).  Credentials: KRB5CCNAME, KRB5_KTNAME. */
#include "config.h"

#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PIECE (16 * 1024)
#define ROUND 256 /* messages between looks at the clock */

static void check(const char *what, OM_uint32 major, OM_uint32 minor)
{
	gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
	OM_uint32 more = 0, ignored;

	if (!GSS_ERROR(major))
		return;
	gss_display_status(&ignored, minor != 0 ? minor : major, minor != 0 ? GSS_C_MECH_CODE : GSS_C_GSS_CODE, GSS_C_NO_OID, &more,
			   &text);
	fprintf(stderr, "gss-bench: %s: %.*s\n", what, (int)text.length, (const char *)text.value);
	exit(1);
}

static double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void establish(const char *service, gss_ctx_id_t *ours, gss_ctx_id_t *theirs)
{
	gss_buffer_desc text = {.length = strlen(service), .value = (void *)(size_t)service}, in = GSS_C_EMPTY_BUFFER, out;
	const OM_uint32 flags = GSS_C_MUTUAL_FLAG | GSS_C_REPLAY_FLAG | GSS_C_SEQUENCE_FLAG | GSS_C_CONF_FLAG | GSS_C_INTEG_FLAG;
	gss_name_t name;
	OM_uint32 minor, ignored, major = gss_import_name(&minor, &text, GSS_C_NT_HOSTBASED_SERVICE, &name);

	check("the service's name", major, minor);
	do {
		major = gss_init_sec_context(&minor, GSS_C_NO_CREDENTIAL, ours, name, (gss_OID)(size_t)gss_mech_krb5, flags, 0,
					     GSS_C_NO_CHANNEL_BINDINGS, &in, NULL, &out, NULL, NULL);
		check("gss_init_sec_context", major, minor);
		gss_release_buffer(&ignored, &in);
		if (out.length == 0)
			break;
		check("gss_accept_sec_context",
		      gss_accept_sec_context(&minor, theirs, GSS_C_NO_CREDENTIAL, &out, GSS_C_NO_CHANNEL_BINDINGS, NULL, NULL, &in, NULL,
					     NULL, NULL),
		      minor);
		gss_release_buffer(&ignored, &out);
	} while (major == GSS_S_CONTINUE_NEEDED);
	gss_release_name(&ignored, &name);
}

static double bytes_per_cpu_s(gss_ctx_id_t ours, gss_ctx_id_t theirs, int confidential, double seconds)
{
	static char data[PIECE];
	gss_buffer_desc plain = {.length = PIECE, .value = data}, sealed, opened;
	OM_uint32 minor;
	double begin = cpu_s(), now;
	size_t n = 0;

	do {
		for (int i = 0; i < ROUND; i++) {
			check("gss_wrap", gss_wrap(&minor, ours, confidential, GSS_C_QOP_DEFAULT, &plain, NULL, &sealed), minor);
			check("gss_unwrap", gss_unwrap(&minor, theirs, &sealed, &opened, NULL, NULL), minor);
			gss_release_buffer(&minor, &sealed);
			gss_release_buffer(&minor, &opened);
		}
		n += ROUND;
		now = cpu_s();
	} while (now - begin < seconds);
	return (double)n * PIECE / (now - begin);
}

int main(int argc, char **argv)
{
	gss_ctx_id_t ours = GSS_C_NO_CONTEXT, theirs = GSS_C_NO_CONTEXT;
	double seconds = argc == 3 ? atof(argv[2]) : 0;

	if (seconds <= 0) {
		fputs("usage: gss-bench SERVICE@HOST SECONDS\n", stderr);
		return 2;
	}
	establish(argv[1], &ours, &theirs);
	printf("integrity %.0f\n", bytes_per_cpu_s(ours, theirs, 0, seconds));
	printf("confidentiality %.0f\n", bytes_per_cpu_s(ours, theirs, 1, seconds));
	return 0;
}
