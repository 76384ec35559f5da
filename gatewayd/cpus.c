#include "config.h"

#include "gatewayd/cpus.h"

#include <linux/filter.h>
#include <sched.h>
#include <sys/socket.h>

int cpus_read(struct cpus *c, unsigned workers, struct err *why)
{
	cpu_set_t set;

	c->n = 0;
	if (sched_getaffinity(0, sizeof set, &set) != 0)
		return err_set_errno(why, "cpu-local: cannot tell which CPUs there are");
	for (unsigned id = 0; id < CPU_SETSIZE && c->n < CPUS_MAX; id++)
		if (CPU_ISSET(id, &set))
			c->ids[c->n++] = (uint16_t)id;
	if (c->n < workers)
		return err_set(why, "cpu-local: there are %u workers and %u CPUs that they may use; lower workers, or set cpu-local to no",
			       workers, c->n);
	return 0;
}

int cpus_stay(const struct cpus *c, unsigned workers, uint16_t slot, struct err *why)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (unsigned i = slot; i < c->n; i += workers)
		CPU_SET(c->ids[i], &set);
	return sched_setaffinity(0, sizeof set, &set) != 0 ? err_set_errno(why, "cpu-local: cannot stay on a CPU") : 0;
}

int cpus_choose(const struct cpus *c, unsigned workers, int fd)
{
	struct sock_filter code[2 * CPUS_MAX + 2] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_CPU))};
	unsigned short len = 1;

	for (unsigned i = 0; i < c->n; i++) {
		code[len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, c->ids[i], 0, 1);
		code[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, i % workers);
	}
	/* The number of no socket: of another CPU's connections the kernel chooses by their hash, as ever. */
	code[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, workers);

	const struct sock_fprog program = {.len = len, .filter = code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
}
