/* Which CPU is whose, where the configuration says cpu-local: CPU number i of those that this process may use belongs to worker
 * i modulo their number.  The worker stays there, and is given the connections whose packets the kernel handles there. */
#pragma once

#include <stdint.h>

#include "common/err.h"

#define CPUS_MAX 1024

struct cpus {
	unsigned n;
	uint16_t ids[CPUS_MAX]; /* ascending */
};

/* Those of sched_getaffinity(2), the first CPUS_MAX of them.  0, or -1 with *why: there is none for each of the workers. */
int cpus_read(struct cpus *c, unsigned workers, struct err *why);
/* The calling process stays on the CPUs of worker `slot`: 0 or -1 with *why. */
int cpus_stay(const struct cpus *c, unsigned workers, uint16_t slot, struct err *why);
/* fd listens with SO_REUSEPORT, as one of `workers` sockets that began to in the order of their slots: from now on the CPU chooses among
 * them (socket(7), SO_ATTACH_REUSEPORT_CBPF).  0 or -1 with errno. */
int cpus_choose(const struct cpus *c, unsigned workers, int fd);
