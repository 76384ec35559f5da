/* gatewayctl policy impact; argv[0] is the verb.  Returns an exit code. */
#pragma once

int policy_impact(int argc, char **argv);
