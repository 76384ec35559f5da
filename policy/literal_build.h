/* Finds for each pattern of a predicate the bytes of a name that lead to it; see literal.h and struct img_literal. */
#pragma once

#include "policy/blob.h"
#include "policy/image.h"

/* p->a names the patterns; fills in b, c and aid. */
void literal_build(struct blob sections[SECTION_COUNT], uint64_t seed, struct img_pred *p);
