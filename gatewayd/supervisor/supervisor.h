/* The supervisor starts, watches and restarts the other processes, opens listeners and hands descriptors over.  It never
 * parses a byte of a client or of a policy; when it goes, all end. */
#pragma once

#include "gatewayd/conf.h"

/* Runs the gateway in the foreground until a signal ends it.  config_text is what config was read from.  Returns an exit
 * code. */
int supervisor_main(const struct config *config, const char *config_text);
