/* The verbs of gatewayctl audit that have a file of their own; argv[0] is the verb.  Each returns an exit code. */
#pragma once

#include <stddef.h>

#define ADMIN_AUDIT_DIR "/var/lib/gatewayd/audit"

int admin_audit_verify(int argc, char **argv);
int admin_audit_prune(int argc, char **argv);
int admin_audit_hold(int argc, char **argv);
int admin_audit_report(int argc, char **argv);
int admin_audit_why(int argc, char **argv);
int admin_audit_sql(int argc, char **argv);

struct report;
struct audit_proofs;
/* Verifies the audit in dir into the report; an exit code. */
int audit_integrity(struct audit_proofs *proofs, const char *dir, struct report *r);
/* Where the store of policies is that belongs to the audit in dir. */
void audit_policy_path(const char *dir, char *path, size_t size);
