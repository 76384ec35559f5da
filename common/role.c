#include "config.h"

#include "common/role.h"

#include <string.h>

static const char *const names[ROLE_COUNT] = {
	[ROLE_SUPERVISOR] = "supervisor",
	[ROLE_WORKER] = "worker",
	[ROLE_AUTH] = "auth",
	[ROLE_PAM] = "pam",
	[ROLE_GSSAPI] = "gssapi",
	[ROLE_RECORDER] = "recorder",
	[ROLE_CONTROL] = "control",
	[ROLE_COMPILER] = "compiler",
	[ROLE_READER] = "reader",
};

const char *role_name(enum role role)
{
	return (unsigned)role < ROLE_COUNT ? names[role] : "unknown";
}

enum role role_parse(const char *text)
{
	for (int i = 0; i < ROLE_COUNT; i++)
		if (strcmp(names[i], text) == 0)
			return (enum role)i;
	return ROLE_COUNT;
}
