/* gatewayctl policy impact; argv[0] is the verb.  Returns an exit code. */
#pragma once

int policy_impact(int argc, char **argv);

/* In a line, for a preview: what this policy would have decided otherwise in the last day.  Says so if that cannot be told. */
struct bundle;
void impact_preview(const struct bundle *b);
