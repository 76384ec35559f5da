/* Whose work is urgent, as the scheduler is told.  All of it is a wish: where it cannot be granted, nothing changes. */
#pragma once

/* For a process that computes for long while clients wait for others of ours: it calls nobody off the processor, and
 * has the smaller share beside them.  It leaves the session and the process group of its parent. */
void priority_aside(void);
