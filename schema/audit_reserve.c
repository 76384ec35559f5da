#include "config.h"

#include "schema/audit_reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESERVE_FILE "reserve"

/* For file systems without fallocate(2): bytes that are there, not a hole. */
static int write_zeros(int fd, uint64_t bytes)
{
	static const uint8_t zeros[65536];

	for (uint64_t at = 0; at < bytes; at += sizeof zeros) {
		uint64_t left = bytes - at;
		ssize_t n = pwrite(fd, zeros, left < sizeof zeros ? left : sizeof zeros, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
	}
	return 0;
}

int audit_reserve_fill(uint64_t bytes, struct err *why)
{
	int fd = open(RESERVE_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
	int rc;

	if (fd < 0)
		return err_set_errno(why, "the reserve of the audit cannot be made");
	rc = fallocate(fd, 0, 0, (off_t)bytes);
	if (rc != 0 && errno == EOPNOTSUPP)
		rc = write_zeros(fd, bytes);
	/* Smaller than before, if so configured. */
	if (rc == 0)
		rc = ftruncate(fd, (off_t)bytes);
	if (rc != 0) {
		err_set_errno(why, "the disk has no room for the audit's reserve of %llu MiB",
			      (unsigned long long)(bytes >> 20));
		/* What there was of it is for those who need it now. */
		(void)!ftruncate(fd, 0);
	}
	close(fd);
	return rc == 0 ? 0 : -1;
}

void audit_reserve_release(void)
{
	int fd = open(RESERVE_FILE, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);

	if (fd < 0)
		return;
	(void)!ftruncate(fd, 0);
	close(fd);
}
