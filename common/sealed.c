#include "config.h"

#include "common/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

static int write_all(int fd, const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

int sealed_create_parts(const char *name, const struct iovec *parts, size_t n, struct err *why)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), rc = 0;
	size_t len = 0;

	if (fd < 0)
		return err_set_errno(why, "cannot make a memory file for %s", name);
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = write_all(fd, parts[i].iov_base, parts[i].iov_len);
		len += parts[i].iov_len;
	}
	if (rc != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
		err_set_errno(why, "cannot write and seal the memory file for %s (%zu bytes)", name, len);
		close(fd);
		return -1;
	}
	return fd;
}

int sealed_create(const char *name, const void *data, size_t len, struct err *why)
{
	struct iovec whole = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};

	return sealed_create_parts(name, &whole, 1, why);
}

int sealed_map(int fd, size_t max, struct sealed *out, struct err *why)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	*out = (struct sealed){0};
	if (seals < 0 || (seals & SEALS) != SEALS)
		return err_set(why, "the memory file received is not sealed");
	if (fstat(fd, &st) != 0 || st.st_size < 0 || (uint64_t)st.st_size > max)
		return err_set(why, "the memory file received is larger than %zu bytes", max);
	if (st.st_size == 0)
		return 0;
	/* Private: before Linux 6.7 a write-sealed file cannot be mapped shared, not even for reading.  The pages are the
	 * page cache's either way. */
	void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

	if (map == MAP_FAILED)
		return err_set_errno(why, "cannot map a memory file of %lld bytes", (long long)st.st_size);
	out->data = map;
	out->len = (size_t)st.st_size;
	return 0;
}

void sealed_unmap(struct sealed *s)
{
	if (s->data != NULL)
		munmap((void *)(uintptr_t)s->data, s->len);
	*s = (struct sealed){0};
}
