#include "config.h"

#include "policy/words.h"

#include <stdint.h>
#include <string.h>

#include "policy/ast.h"
#include "policy/parse.h"

/* Sorted, for reading; about forty words need no search structure. */
static const struct {
	const char *text;
	int token;
	bool statement;
} words[] = {
	{"alias", ALIAS, false},
	{"allow", ALLOW, false},
	{"answers", ANSWERS, true},
	{"asn", ASN, false},
	{"at", AT, false},
	{"by", BY, false},
	{"cidr", CIDR, false},
	{"claimed-user", CLAIMED_USER, false},
	{"client", CLIENT, false},
	{"command", COMMAND, false},
	{"comment", COMMENT, false},
	{"country", COUNTRY, false},
	{"default", DEFAULT, true},
	{"deny", DENY, false},
	{"domain", DOMAIN, false},
	{"during", DURING, false},
	{"except", EXCEPT, false},
	{"expect", EXPECT, true},
	{"file", FILE_, false},
	{"from", FROM, false},
	{"group", GROUP, false},
	{"include", INCLUDE, true},
	{"internal", INTERNAL, false},
	{"listener", LISTENER, false},
	{"log", LOG, false},
	{"method", METHOD, false},
	{"monitor", MONITOR, false},
	{"nat64-prefix", NAT64_PREFIX, true},
	{"not", NOT, false},
	{"owner", OWNER, false},
	{"port", PORT, false},
	{"regex", REGEX, false},
	{"resolves", RESOLVES, false},
	{"rule", RULE, true},
	{"set", SET, true},
	{"source", SOURCE, false},
	{"strength", STRENGTH, false},
	{"ticket", TICKET, false},
	{"to", TO, false},
	{"tz", TZ, true},
	{"until", UNTIL, false},
	{"user", USER, false},
	{"window", WINDOW, true},
};

#define NWORDS (sizeof words / sizeof words[0])
#define SIMILAR_MAX 32

int words_token(const char *text, size_t len)
{
	for (size_t i = 0; i < NWORDS; i++)
		if (len > 0 && words[i].text[0] == text[0] && strlen(words[i].text) == len &&
		    memcmp(words[i].text, text, len) == 0)
			return words[i].token;
	return 0;
}

bool words_begins_statement(int token)
{
	for (size_t i = 0; i < NWORDS; i++)
		if (words[i].token == token)
			return words[i].statement;
	return false;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Edits (insert, delete, replace, swap of neighbours) between two short words. */
static unsigned distance(const char *a, size_t la, const char *b, size_t lb)
{
	unsigned row[3][SIMILAR_MAX + 1];

	for (size_t j = 0; j <= lb; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= la; i++) {
		unsigned *now = row[i % 3], *up = row[(i - 1) % 3], *up2 = row[(i + 1) % 3];

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= lb; j++) {
			now[j] = min3(now[j - 1] + 1, up[j] + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < now[j])
				now[j] = up2[j - 2] + 1;
		}
	}
	return row[la % 3][lb];
}

static uint32_t letters(const char *text)
{
	uint32_t seen = 0;

	for (; *text != '\0'; text++)
		seen |= 1u << (*text & 31);
	return seen;
}

bool words_similar(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	size_t shorter = la < lb ? la : lb, longer = la + lb - shorter;
	unsigned most = shorter >= 5 ? 2 : 1;

	if (longer > SIMILAR_MAX || shorter < 3 || longer - shorter > most)
		return false;
	/* An edit adds or takes away at most one letter each: most pairs of words need no closer look. */
	if ((unsigned)__builtin_popcount(letters(a) ^ letters(b)) > 2 * most)
		return false;
	unsigned n = distance(a, la, b, lb);

	return n > 0 && n <= most;
}

const char *words_near(const char *text)
{
	for (size_t i = 0; i < NWORDS; i++) {
		/* These two never follow a list of names, and look like many a name. */
		if (words[i].token == ASN || words[i].token == FILE_)
			continue;
		if (words_similar(text, words[i].text))
			return words[i].text;
	}
	return NULL;
}

bool words_bare(const char *text)
{
	static const char first[] = "_.*:/$+-", later[] = "_.*:/$+-@~%=";

	if (*text == '\0' || words_token(text, strlen(text)) != 0)
		return false;
	for (const char *p = text; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c >= 0x80;

		if (!plain && strchr(p == text ? first : later, c) == NULL)
			return false;
	}
	return true;
}
