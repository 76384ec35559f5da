/* Room on the disk that is kept for the worst moment: given up when the disk is full, so that what must still be
 * recorded (ends of sessions, refusals) can be.  The file "reserve" in the current directory. */
#pragma once

#include <stdint.h>

#include "common/err.h"

/* The reserve is there in full (again): 0, or -1 if the disk has no room for it. */
int audit_reserve_fill(uint64_t bytes, struct err *why);
void audit_reserve_release(void);
