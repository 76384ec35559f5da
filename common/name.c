#include "config.h"

#include "common/name.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f');
}

/* Lower-cases *c in place; false if a host name may not hold it. */
static bool fold_byte(char *c)
{
	if (*c >= 'A' && *c <= 'Z')
		*c = (char)(*c - 'A' + 'a');
	return (*c >= 'a' && *c <= 'z') || is_digit(*c) || *c == '-' || *c == '_';
}

/* Decimal, octal or 0x-hex: what inet_aton(3) would try to read as a number. */
static bool is_number(const char *label)
{
	bool hex = label[0] == '0' && label[1] == 'x';

	for (label += hex ? 2 : 0; *label != '\0'; label++)
		if (hex ? !is_hex(*label) : !is_digit(*label))
			return false;
	return true;
}

static const char *check_labels(struct name *n)
{
	size_t label = 0;

	for (size_t i = 0; i < n->len; i++) {
		if (n->text[i] != '.') {
			if (!fold_byte(&n->text[i]))
				return "name holds a byte other than letters, digits, '-', '_' and '.'";
			if (++label > 63)
				return "name has a label longer than 63 octets";
			continue;
		}
		if (label == 0)
			return "name has an empty label";
		label = 0;
	}
	return label == 0 ? "name has an empty label" : NULL;
}

static enum name_kind ipv6_text(const char *text, size_t len, struct addr *address, const char **why)
{
	char copy[ADDR_TEXT_MAX];

	if (len < sizeof copy && memchr(text, '\0', len) == NULL) {
		memcpy(copy, text, len);
		copy[len] = '\0';
		if (addr_parse(copy, address))
			return NAME_IS_ADDRESS;
	}
	*why = "name holds ':' but is no IPv6 address";
	return NAME_REFUSED;
}

enum name_kind name_canonical(const void *text, size_t len, struct name *name, struct addr *address, const char **why)
{
	struct name n;
	struct in_addr v4;

	if (len > 0 && memchr(text, ':', len) != NULL)
		return ipv6_text(text, len, address, why);
	if (len > 0 && ((const char *)text)[len - 1] == '.')
		len--;
	if (len == 0 || len > NAME_MAX_LEN) {
		*why = len == 0 ? "name is empty" : "name is longer than 253 octets";
		return NAME_REFUSED;
	}
	n.len = (uint8_t)len;
	memcpy(n.text, text, len);
	n.text[len] = '\0';
	*why = check_labels(&n);
	if (*why != NULL)
		return NAME_REFUSED;

	const char *dot = strrchr(n.text, '.');

	if (is_number(dot == NULL ? n.text : dot + 1)) {
		if (inet_aton(n.text, &v4) == 0) {
			*why = "name ends in a number but is no IPv4 address";
			return NAME_REFUSED;
		}
		*address = addr_v4(ntohl(v4.s_addr));
		return NAME_IS_ADDRESS;
	}
	*name = n;
	return NAME_IS_NAME;
}
