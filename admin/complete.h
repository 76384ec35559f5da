/* gatewayctl complete: for the completions of shells. */
#pragma once

/* run: of a noun, argv[0].  Returns an exit code. */
int admin_complete(int argc, char **argv, int (*run)(int argc, char **argv));
