/* A policy from text to open image, for tests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

struct fixture {
	struct policy_tree *tree;
	struct policy_diagnostics diagnostics;
	uint8_t *data;
	size_t len;
	struct policy_image *image;
};

/* Parses, checks, compiles, verifies, opens; fails the test if any of it does. */
void fixture_open(struct fixture *f, const char *text);
/* Parses and checks only; the diagnostics are the result. */
void fixture_check(struct fixture *f, const char *text, size_t len);
void fixture_close(struct fixture *f);

struct addr fixture_addr(const char *text);
struct name fixture_name(const char *text);
/* UTC. */
int64_t fixture_time(int year, int month, int day, int hour, int minute);
/* The whole of a file, NUL-terminated, malloc'd; fails the test if it cannot be read. */
char *fixture_read(const char *path, size_t *len);
