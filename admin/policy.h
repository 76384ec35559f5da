/* gatewayctl policy check | fmt | test | explain: offline, with the caller's rights. */
#pragma once

/* argv[0] is "policy".  Returns the exit code: 0 fine or allowed, 1 refused or denied, 2 wrong usage. */
int admin_policy(int argc, char **argv);
