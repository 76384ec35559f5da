/* The verbs of gatewayctl audit that have a file of their own; argv[0] is the verb.  Each returns an exit code. */
#pragma once

#define ADMIN_AUDIT_DIR "/var/lib/gatewayd/audit"

int admin_audit_verify(int argc, char **argv);
