/* Makes the index of an image whose other sections are complete; see index.h for what it is. */
#pragma once

#include "policy/blob.h"
#include "policy/image.h"

void index_build(struct blob sections[SECTION_COUNT], uint64_t seed, uint32_t roots[INDEX_PHASES]);
