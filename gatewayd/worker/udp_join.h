/* Datagrams that the kernel carries as one.  Where it offers that (udp(7): UDP_GRO, UDP_SEGMENT), datagrams of one size that follow one
 * another from one sender are received in one piece, and leave in one, so that they pass through its layers, and a device that can
 * take them apart, once.  On the wire, and for whoever reads them, nothing differs: they are as many, each with its own header.
 *
 * What is joined is told apart before anybody looks at it: each datagram is decided, carried and counted as one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* The least that kernels which know it take in one piece (UDP_MAX_SEGMENTS), and what fits into one IPv4 packet. */
#define JOIN_MAX 64
#define JOIN_BYTES_MAX 65507
/* What either adds to a message's control data. */
#define JOIN_SIZE_SPACE CMSG_SPACE(sizeof(int))
#define JOIN_MARK_SPACE CMSG_SPACE(sizeof(uint16_t))

/* Asks the kernel to join what comes to fd.  False: it does not know that. */
bool join_receive(int fd);
/* Whether fd can send what is joined. */
bool join_can_send(int fd);
/* Of a message of len bytes that came: *size of each datagram in it, but for the last, which may be shorter; len if it is one.
 * False: what the kernel says of it makes no sense, or is incomplete: there is no telling where each ends. */
bool join_size(const struct msghdr *msg, size_t len, size_t *size);
/* Tells the kernel that a message consists of datagrams of that size.  Appends to the control data, which lies in room for it. */
void join_mark(struct msghdr *msg, uint16_t size);
