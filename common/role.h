/* The roles that a process of gatewayd can have; doc/ARCHITECTURE.md says what each may do. */
#pragma once

enum role {
	ROLE_SUPERVISOR,
	ROLE_WORKER,
	ROLE_AUTH,     /* auth master */
	ROLE_PAM,      /* one PAM conversation at a time */
	ROLE_GSSAPI,   /* unfinished Kerberos contexts, and the keytab */
	ROLE_RECORDER,
	ROLE_CONTROL,
	ROLE_COMPILER,
	ROLE_READER,
	ROLE_COUNT
};

/* "worker"; never NULL. */
const char *role_name(enum role role);
/* ROLE_COUNT if text names none. */
enum role role_parse(const char *text);
