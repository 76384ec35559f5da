/* gatewayctl: one file a noun.  Each noun reads its own words (argv[0] is the noun) and returns an exit code. */
#pragma once

enum admin_exit { ADMIN_FINE = 0, ADMIN_REFUSED = 1, ADMIN_USAGE = 2, ADMIN_UNREACHABLE = 3 };

int admin_status(int argc, char **argv);
int admin_reload(int argc, char **argv);
int admin_rule(int argc, char **argv);
int admin_set(int argc, char **argv);
int admin_window(int argc, char **argv);
int admin_audit(int argc, char **argv);
int admin_drain(int argc, char **argv);
int admin_log(int argc, char **argv);
int admin_auth(int argc, char **argv);
int admin_top(int argc, char **argv);
int admin_session(int argc, char **argv);

/* "gatewayctl: ..." on standard error; returns the code, so that a function can `return admin_fail(ADMIN_USAGE, ...)`.
 */
int admin_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
