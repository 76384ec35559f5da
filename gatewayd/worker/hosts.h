/* The system's hosts(5) table and the servers of resolv.conf(5), read from sealed copies: a worker opens no file. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/name.h"

struct hosts;

/* Never NULL unless memory is short.  Lines that make no sense are skipped, as the system's resolver does. */
struct hosts *hosts_parse(const uint8_t *text, size_t len);
void hosts_free(struct hosts **h);
/* Writes up to max addresses of name; returns how many there are. */
size_t hosts_find(const struct hosts *h, const struct name *name, struct addr *out, size_t max);

/* The `nameserver` lines, port 53; returns how many were written. */
size_t resolv_conf_servers(const uint8_t *text, size_t len, struct endpoint *out, size_t max);
