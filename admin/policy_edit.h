/* gatewayctl policy edit; argv[0] is the verb.  Returns an exit code. */
#pragma once

int policy_edit(int argc, char **argv);
