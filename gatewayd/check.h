/* `gatewayd -n`: everything that can be known without starting. */
#pragma once

#include "gatewayd/conf.h"

/* Checks the policy and the files that a sound configuration names; says what it found.  Returns an exit code. */
int check_all(const struct config *config);
