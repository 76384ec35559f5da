/* What control tells the compiler besides its source. */
#pragma once

enum compile_flags {
	COMPILE_GATE = 1,   /* a failing expectation refuses the policy; else it is only told */
	COMPILE_STRICT = 2, /* so does a warning */
};
