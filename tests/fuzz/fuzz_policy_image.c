/* Any bytes as an image whose checksum somebody has made right: refused, or harmless in use. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "policy/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decide(const struct policy_image *image)
{
	static const char *const groups[] = {"hr", "eng"};
	struct name name = {.len = 15, .text = "www.example.com"}, alias = {.len = 6, .text = "a.test"};
	struct addr addresses[2] = {{.family = ADDR_V4, .bytes = {10, 0, 0, 1}},
				    {.family = ADDR_V6, .bytes = {0, 0x64, 0xff, 0x9b, [12] = 192, 0, 2, 1}}};
	struct policy_request r = {.client = addresses[0],
				   .listener = "main",
				   .user = "ann",
				   .groups = groups,
				   .ngroups = 2,
				   .claimed_user = "bob",
				   .method = POLICY_METHOD_PASSWORD,
				   .command = POLICY_CONNECT,
				   .name = &name,
				   .port = 443};
	struct policy_context ctx = {.image = image, .now = 1795168800};
	struct policy_decision each[2], d;
	char text[256];

	policy_decide_name(&ctx, &r, &d);
	policy_decide_answers(&ctx, &r, addresses, 2, &alias, 1, each, &d);
	policy_decision_text(image, &d, text, sizeof text);
	free(policy_explain(&ctx, &r, addresses, 2, &alias, 1, false, &d));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err why;
	uint8_t *copy;

	if (size < sizeof(struct img_header))
		return 0;
	copy = malloc(size);
	memcpy(copy, data, size);
	image_seal(copy, size);
	if (policy_image_verify(copy, size, &why) == 0) {
		struct policy_image *image = policy_image_open(copy, size, &why);

		if (image == NULL)
			abort();
		/* What the first time found out, the second time is remembered. */
		decide(image);
		decide(image);
		policy_image_close(&image);
	}
	free(copy);
	return 0;
}
