#include "config.h"

#include "gatewayd/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/gss.h"
#include "policy/bundle.h"
#include "schema/policy_store.h"

static char *read_text(const char *path, size_t *len)
{
	FILE *fp = fopen(path, "re");
	char *text = NULL, *grown;
	size_t size = 0;

	*len = 0;
	while (fp != NULL && *len <= POLICY_TEXT_MAX) {
		if (*len == size) {
			size = size == 0 ? 64 * 1024 : size * 2;
			grown = realloc(text, size);
			if (grown == NULL)
				break;
			text = grown;
		}
		size_t n = fread(text + *len, 1, size - *len, fp);

		if (n == 0)
			break;
		*len += n;
	}
	if (fp == NULL || ferror(fp) || *len > POLICY_TEXT_MAX) {
		fprintf(stderr, "%s: cannot read the policy: %s\n", path, *len > POLICY_TEXT_MAX ? "too large" : strerror(errno));
		free(text);
		text = NULL;
	}
	if (fp != NULL)
		fclose(fp);
	return text;
}

static void print(const struct policy_diagnostics *d)
{
	for (size_t i = 0; i < d->count; i++) {
		char *line = policy_diagnostic_format(&d->items[i]);

		fprintf(stderr, "%s\n", line == NULL ? d->items[i].message : line);
		free(line);
	}
}

/* True if nothing is wrong but that the policy names files, which nobody reads here. */
static bool only_names_files(const struct policy_diagnostics *d)
{
	for (size_t i = 0; i < d->count; i++)
		if (d->items[i].severity == POLICY_ERROR && strcmp(d->items[i].code, "file") != 0)
			return false;
	return d->errors > 0;
}

static bool policy_is_sound(const char *path)
{
	struct policy_diagnostics d = {0};
	struct policy_image *image = NULL;
	struct policy_tree *tree;
	struct bundle_file file = {.name = path};
	uint8_t *bytes = NULL;
	size_t image_len;
	struct err why;
	char *text = read_text(path, &file.len);

	if (text == NULL)
		return false;
	file.text = text;
	tree = bundle_parse(&(struct bundle){&file, 1}, &d);
	bool incomplete = only_names_files(&d);

	if (d.errors == 0)
		policy_check(tree, &d);
	if (d.errors == 0 && policy_compile(tree, &bytes, &image_len, &d) == 0)
		image = policy_image_open(bytes, image_len, &why);
	if (image != NULL)
		policy_expect(tree, image, &d);
	bool sound = incomplete || (image != NULL && d.errors == 0);

	if (incomplete)
		fprintf(stderr, "%s names other files, which are not read here: `gatewayctl policy check` reads them, and "
				"`gatewayctl policy apply` puts such a policy into force\n",
			path);
	else
		print(&d);
	if (image != NULL)
		policy_image_close(&image);
	free(bytes);
	free(text);
	policy_tree_free(tree);
	policy_diagnostics_free(&d);
	return sound;
}

static bool database_is_sound(const struct config *config, enum config_file file)
{
	const char *path = config_file_path(config, file);
	uint8_t *table = NULL;
	size_t len;
	struct err why;

	if (path[0] == '\0')
		return true;
	if ((file == CONFIG_FILE_ASN ? policy_asn_compile : policy_geo_compile)(path, &table, &len, &why) != 0) {
		fprintf(stderr, "%s %s: %s\n", config_file_option(file), path, why.text);
		return false;
	}
	free(table);
	return true;
}

static bool keytab_is_sound(const struct config *config)
{
	struct err why;

	if (!config_has_gssapi(config) || gss_server_read_keytab(config->gssapi_keytab, config->gssapi_krb5_conf, &why) == 0)
		return true;
	fprintf(stderr, "%s: %s\n", config->file, why.text);
	return false;
}

int check_all(const struct config *config)
{
	bool policy = policy_is_sound(config->policy_file);
	bool countries = database_is_sound(config, CONFIG_FILE_GEOIP), asns = database_is_sound(config, CONFIG_FILE_ASN);

	bool keytab = keytab_is_sound(config);

	if (!policy || !countries || !asns || !keytab)
		return EXIT_CONFIG;
	printf("%s: configuration and policy are sound\n", config->file);
	return 0;
}
