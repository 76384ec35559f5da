/* Any bytes as a file that a policy names: the first byte says as what.  No crash, bounded complaints; what has no
 * error compiles to a sound image. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct content {
	const uint8_t *data;
	size_t size;
};

static int provide(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name,
		   struct err *why)
{
	const struct content *c = arg;

	(void)from;
	/* Also when it includes itself under other names. */
	if (strlen(path) > 40)
		return err_set(why, "there is no such file");
	*bytes = malloc(c->size + 1);
	*name = strdup(path);
	if (*bytes == NULL || *name == NULL)
		abort();
	memcpy(*bytes, c->data, c->size);
	*len = c->size;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const policies[] = {
		"set s cidr file x\nrule r deny to cidr @s client @s\n",
		"set s domain file x\nrule r deny to domain @s\n",
		"set s regex file x\nrule r deny to regex @s\n",
		"set s port file x\nrule r deny port @s\n",
		"set s user file x\nrule r deny user @s\n",
		"set s group file x\nrule r deny group @s\n",
		"set s country file x\nrule r deny to country @s\n",
		"set s asn file x\nrule r deny to asn @s\n",
		"include x\nrule z allow\n",
	};
	struct policy_diagnostics d = {0};
	uint8_t *image = NULL;
	struct err why;
	size_t len;

	if (size == 0)
		return 0;
	struct content content = {data + 1, size - 1};
	struct policy_provider p = {.read = provide, .arg = &content};
	const char *text = policies[data[0] % (sizeof policies / sizeof policies[0])];
	struct policy_tree *t = policy_parse_with("fuzz", text, strlen(text), &p, &d);

	policy_check(t, &d);
	if (d.errors == 0) {
		if (policy_compile(t, &image, &len, &d) != 0 || policy_image_verify(image, len, &why) != 0)
			abort();
		struct policy_image *open = policy_image_open(image, len, &why);

		if (open == NULL)
			abort();
		policy_expect(t, open, &d);
		policy_find(t, open, 1795168800, &d);
		policy_image_close(&open);
	}
	if (d.count > POLICY_DIAGNOSTICS_MAX + 1)
		abort();
	for (size_t i = 0; i < d.count; i++)
		free(policy_diagnostic_format(&d.items[i]));
	policy_diagnostics_free(&d);
	policy_tree_free(t);
	free(image);
	return 0;
}
