/* What each verb of gatewayctl policy does, a screen each. */
#pragma once

/* NULL: there is none for this verb, which has its own. */
const char *policy_help(const char *verb);
