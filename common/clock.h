/* Time.  Wall time enters the program through clock_wall_us() alone, so that tests can shift it from outside: when the
 * environment names a readable descriptor in GATEWAYD_CLOCK_FD (or a file in GATEWAYD_CLOCK_FILE), its first eight bytes
 * are a signed offset in microseconds (host order), mapped, and may change at any moment. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Maps the test offset if the environment asks for one.  Call once, before a sandbox closes.  Returns true if wall time
 * may be shifted (the caller says so in the log). */
bool clock_init(void);

/* Microseconds since the epoch, shifted by tests. */
int64_t clock_wall_us(void);
/* Microseconds of CLOCK_MONOTONIC: durations and deadlines, never shifted. */
int64_t clock_mono_us(void);
/* Microseconds of CLOCK_BOOTTIME, never shifted: it goes on while the host is suspended, and nobody can set it; 0 is the host's start. */
int64_t clock_boot_us(void);
