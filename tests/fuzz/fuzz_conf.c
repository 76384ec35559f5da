/* gatewayd.conf: any text gives a snapshot within bounds or errors, never both. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *errors = NULL;

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	struct config *c = config_parse("fuzz.conf", text, &errors);

	must((c == NULL) == (errors != NULL));
	if (c != NULL) {
		must(c->nlisteners >= 1 && c->nlisteners <= CONFIG_LISTENERS_MAX);
		must(c->workers >= 1 && c->workers <= 64 && c->nresolvers <= CONFIG_RESOLVERS_MAX);
		must(c->state_dir[0] == '/' && c->policy_file[0] == '/' && c->control_socket[0] == '/');
		for (size_t i = 0; i < c->nlisteners; i++) {
			must(c->listeners[i].naddresses >= 1 && c->listeners[i].naddresses <= CONFIG_ADDRESSES_MAX);
			must(c->listeners[i].nmethods >= 1 && c->listeners[i].nmethods <= 2);
		}
	}
	config_free(&c);
	free(errors);
	free(text);
	return 0;
}
