/* Any bytes as a bundle: refused, or files that lie within, and a policy that is parsed from them without a crash. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "policy/bundle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size == 0 ? 1 : size); /* aligned, and its end is watched */
	struct policy_diagnostics d = {0};
	struct bundle b;
	struct err why;

	memcpy(copy, data, size);
	if (bundle_read(copy, size, &b, &why) == 0) {
		volatile char sink = 0;

		for (size_t i = 0; i < b.count; i++) {
			if (strlen(b.files[i].name) == 0 || bundle_find(&b, b.files[i].name) != &b.files[i])
				abort();
			for (size_t k = 0; k < b.files[i].len; k++)
				sink ^= b.files[i].text[k];
		}
		struct policy_tree *t = bundle_parse(&b, &d);

		policy_check(t, &d);
		policy_tree_free(t);
		policy_diagnostics_free(&d);
		bundle_clear(&b);
	}
	free(copy);
	return 0;
}
