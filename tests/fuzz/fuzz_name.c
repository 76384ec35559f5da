/* Any bytes as a host name: refused with a reason, an address, or a canonical name that is its own canonical form. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
	struct name name, again;
	struct addr address;
	const char *why = NULL;

	switch (name_canonical(data, size, &name, &address, &why)) {
	case NAME_REFUSED:
		if (why == NULL)
			abort();
		break;
	case NAME_IS_ADDRESS:
		if (address.family != ADDR_V4 && address.family != ADDR_V6)
			abort();
		break;
	case NAME_IS_NAME:
		if (name.len == 0 || name.len > NAME_MAX_LEN || strlen(name.text) != name.len ||
		    strspn(name.text, allowed) != name.len || name.text[name.len - 1] == '.')
			abort();
		if (name_canonical(name.text, name.len, &again, &address, &why) != NAME_IS_NAME ||
		    strcmp(name.text, again.text) != 0)
			abort();
		break;
	}
	return 0;
}
