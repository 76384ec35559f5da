/* Any bytes as a policy: no crash, bounded complaints; what has no error compiles to a sound image, and its canonical
 * form is a policy of the same meaning. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *compile(const char *text, size_t len, char **printed, size_t *image_len)
{
	struct policy_diagnostics d = {0};
	struct policy_tree *t = policy_parse("fuzz", text, len, &d);
	uint8_t *image = NULL;

	policy_check(t, &d);
	if (d.errors == 0 && policy_compile(t, &image, image_len, &d) != 0)
		abort();
	*printed = d.errors == 0 ? policy_print(t) : NULL;
	for (size_t i = 0; i < d.count; i++)
		free(policy_diagnostic_format(&d.items[i]));
	if (d.count > POLICY_DIAGNOSTICS_MAX + 1)
		abort();
	policy_diagnostics_free(&d);
	policy_tree_free(t);
	return image;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *first, *second;
	size_t len, again_len;
	struct err why;
	uint8_t *image = compile((const char *)data, size, &first, &len);

	if (image == NULL)
		return 0;
	uint8_t *again = compile(first, strlen(first), &second, &again_len);

	if (again == NULL || strcmp(first, second) != 0 || len != again_len || memcmp(image, again, len) != 0)
		abort();
	if (policy_image_verify(image, len, &why) != 0)
		abort();
	free(image);
	free(again);
	free(first);
	free(second);
	return 0;
}
