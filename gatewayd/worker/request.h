/* What a client asks for, in no protocol's terms: front ends make it, everything after them reads it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/name.h"
#include "policy/policy.h"

struct request {
	enum policy_command command;
	bool has_name; /* else address is the literal */
	struct name name;
	struct addr address;
	uint16_t port;
};
