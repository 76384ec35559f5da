/* The verbs of gatewayctl rule that have a file of their own; argv[0] is the verb.  Each returns an exit code. */
#pragma once

int rule_list(int argc, char **argv);
int rule_unused(int argc, char **argv);
int rule_expiring(int argc, char **argv);
