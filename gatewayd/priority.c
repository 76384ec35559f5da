#include "config.h"

#include "gatewayd/priority.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

/* A third of the share (sched(7)): beside busy workers its work still ends before anybody loses patience. */
#define NICE 5

void priority_aside(void)
{
	struct sched_param param = {0};

	/* Where the kernel shares processors out by session (CONFIG_SCHED_AUTOGROUP), what one process of a session
	 * uses the others lack against the rest of the machine, whatever their nice values. */
	setsid();
	sched_setscheduler(0, SCHED_BATCH, &param);
	setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + NICE);
}
