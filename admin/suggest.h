/* gatewayctl policy suggest; argv[0] is the verb.  Returns an exit code. */
#pragma once

int policy_suggest(int argc, char **argv);
