/* The SQL that makes each store, embedded from schema/<store>/NNNN_*.sql at build time; NULL ends a list.  A store
 * whose user_version is n has run the first n. */
#pragma once

extern const char *const schema_audit_migrations[];
extern const char *const schema_policy_migrations[];
