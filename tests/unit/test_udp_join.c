/* Datagrams that the kernel carries as one: told apart again, whatever it says of them. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "gatewayd/worker/udp_join.h"

#define UDP_GRO_TYPE 104

/* A message as the kernel fills it in. */
struct came {
	struct msghdr msg;
	char control[256] __attribute__((aligned(8)));
};

static struct cmsghdr *add(struct came *c, int level, int type, const void *data, size_t len)
{
	struct cmsghdr *h = (struct cmsghdr *)(void *)(c->control + c->msg.msg_controllen);

	c->msg.msg_control = c->control;
	c->msg.msg_controllen += CMSG_SPACE(len);
	h->cmsg_level = level;
	h->cmsg_type = type;
	h->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(h), data, len);
	return h;
}

static struct came sized(int each)
{
	struct came c = {0};

	add(&c, IPPROTO_UDP, UDP_GRO_TYPE, &each, sizeof each);
	c.msg.msg_control = NULL; /* the caller's copy has another place */
	return c;
}

static bool size_of(struct came *c, size_t len, size_t *size)
{
	c->msg.msg_control = c->control;
	return join_size(&c->msg, len, size);
}

static void test_one_is_one(void **state)
{
	struct came none = {0};
	size_t size;

	(void)state;
	for (size_t len = 0; len < 3; len++) {
		assert_true(size_of(&none, len, &size));
		assert_int_equal(size, len);
	}
}

static void test_sizes(void **state)
{
	struct came c = sized(100);
	size_t size;

	(void)state;
	assert_true(size_of(&c, 250, &size));
	assert_int_equal(size, 100);
	/* One that is no longer than that is whole, and never is anything beyond it looked at. */
	for (size_t len = 0; len <= 100; len += 50) {
		assert_true(size_of(&c, len, &size));
		assert_int_equal(size, len);
	}
	c = sized(INT32_MAX);
	assert_true(size_of(&c, 7, &size));
	assert_int_equal(size, 7);
	c = sized(1);
	assert_true(size_of(&c, 65535, &size));
	assert_int_equal(size, 1);
}

static void test_sizes_that_make_no_sense(void **state)
{
	static const int senseless[] = {0, -1, INT32_MIN};
	size_t size;

	(void)state;
	for (size_t i = 0; i < sizeof senseless / sizeof *senseless; i++) {
		struct came c = sized(senseless[i]);

		assert_false(size_of(&c, 100, &size));
	}
}

static void test_what_is_incomplete_is_not_believed(void **state)
{
	struct came c = sized(100);
	uint16_t small = 100;
	uint64_t large = 100;
	size_t size;

	(void)state;
	c.msg.msg_flags = MSG_CTRUNC;
	assert_false(size_of(&c, 250, &size));
	c = (struct came){0};
	add(&c, IPPROTO_UDP, UDP_GRO_TYPE, &small, sizeof small);
	assert_false(size_of(&c, 250, &size));
	c = (struct came){0};
	add(&c, IPPROTO_UDP, UDP_GRO_TYPE, &large, sizeof large);
	assert_false(size_of(&c, 250, &size));
	c = (struct came){0};
	add(&c, IPPROTO_UDP, UDP_GRO_TYPE, &small, 0);
	assert_false(size_of(&c, 250, &size));
	/* Its value lies beyond what the kernel has written. */
	c = sized(100);
	c.msg.msg_controllen = CMSG_LEN(sizeof(int)) - 1;
	assert_false(size_of(&c, 250, &size));
	/* A header that does not fit is none. */
	c = sized(100);
	c.msg.msg_controllen = sizeof(struct cmsghdr) - 1;
	assert_true(size_of(&c, 250, &size));
	assert_int_equal(size, 250);
}

static void test_others_control_data_is_passed_over(void **state)
{
	struct came c = {0};
	int zero = 0, each = 10;
	size_t size;

	(void)state;
	add(&c, IPPROTO_IP, UDP_GRO_TYPE, &zero, sizeof zero);
	add(&c, IPPROTO_UDP, UDP_GRO_TYPE - 1, &zero, sizeof zero);
	assert_true(size_of(&c, 25, &size));
	assert_int_equal(size, 25);
	add(&c, IPPROTO_UDP, UDP_GRO_TYPE, &each, sizeof each);
	assert_true(size_of(&c, 25, &size));
	assert_int_equal(size, 10);
}

static void test_a_mark_follows_other_control_data(void **state)
{
	struct came c = {0};
	int other = 5;
	uint16_t size;

	(void)state;
	add(&c, IPPROTO_IP, IP_TTL, &other, sizeof other);
	join_mark(&c.msg, 1400);
	assert_int_equal(c.msg.msg_controllen, CMSG_SPACE(sizeof other) + JOIN_MARK_SPACE);
	struct cmsghdr *mark = CMSG_NXTHDR(&c.msg, CMSG_FIRSTHDR(&c.msg));

	assert_non_null(mark);
	assert_int_equal(mark->cmsg_level, IPPROTO_UDP);
	assert_int_equal(mark->cmsg_len, CMSG_LEN(sizeof size));
	memcpy(&size, CMSG_DATA(mark), sizeof size);
	assert_int_equal(size, 1400);
}

/* ---- the kernel -------------------------------------------------------------------------------------------------------- */

static int bound(struct sockaddr_in *at)
{
	socklen_t len = sizeof *at;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	*at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_int_equal(bind(fd, (struct sockaddr *)at, sizeof *at), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)at, &len), 0);
	return fd;
}

/* As one leaves and comes: the kernel takes it apart, and at most a receiver that asked for it gets it in one piece. */
static void test_the_kernel_agrees(void **state)
{
	char data[1000], got[2000], control[JOIN_SIZE_SPACE] __attribute__((aligned(8)));
	char mark[JOIN_MARK_SPACE] __attribute__((aligned(8)));
	struct sockaddr_in to, unused;
	int in = bound(&to), out = bound(&unused);
	struct iovec iov = {data, sizeof data}, into = {got, sizeof got};
	struct msghdr msg = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1, .msg_control = mark};
	size_t size, total = 0, n = 0;

	(void)state;
	if (!join_can_send(out) || !join_receive(in)) {
		close(in);
		close(out);
		skip();
	}
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (char)(i * 7);
	join_mark(&msg, 300);
	assert_int_equal(sendmsg(out, &msg, 0), sizeof data);
	while (total < sizeof data) {
		struct msghdr in_msg = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		ssize_t len = recvmsg(in, &in_msg, 0);

		assert_true(len > 0);
		assert_true(join_size(&in_msg, (size_t)len, &size));
		assert_memory_equal(got, data + total, (size_t)len);
		total += (size_t)len;
		n += ((size_t)len + size - 1) / size;
	}
	assert_int_equal(n, 4);
	close(in);
	close(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_is_one),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_sizes_that_make_no_sense),
		cmocka_unit_test(test_what_is_incomplete_is_not_believed),
		cmocka_unit_test(test_others_control_data_is_passed_over),
		cmocka_unit_test(test_a_mark_follows_other_control_data),
		cmocka_unit_test(test_the_kernel_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
