#include "config.h"

#include "admin/audit_proofs.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"

#define ANCHORS_MAX 1000000

int audit_proofs_add_key(struct audit_proofs *p, const char *path)
{
	struct audit_chain_key *c = &p->chains[p->nchains];
	struct err why;

	if (p->nchains == AUDIT_CHAINS_MAX)
		return admin_fail(ADMIN_USAGE, "--key: there are at most %d", AUDIT_CHAINS_MAX);
	if (audit_first_key_read(path, c->store, &c->keys, &why) != 0)
		return admin_fail(ADMIN_REFUSED, "%s", why.text);
	p->nchains++;
	return -1;
}

static bool parse_anchor(const struct audit_proofs *p, const char *line, struct audit_anchor *anchor)
{
	for (size_t i = 0; i < p->nchains; i++)
		if (audit_anchor_parse(line, p->chains[i].store, anchor))
			return true;
	return false;
}

int audit_proofs_add_anchors(struct audit_proofs *p, const char *path)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0, before = p->nanchors;
	int code = -1;

	if (file == NULL)
		return admin_fail(ADMIN_REFUSED, "cannot read %s: %s", path, strerror(errno));
	while (code < 0 && getline(&line, &size, file) > 0) {
		struct audit_anchor anchor, *grown;

		if (!parse_anchor(p, line, &anchor))
			continue;
		grown = p->nanchors == ANCHORS_MAX ? NULL : reallocarray(p->anchors, p->nanchors + 1, sizeof *p->anchors);
		if (grown == NULL) {
			code = admin_fail(ADMIN_REFUSED, "%s: too many anchors", path);
			break;
		}
		p->anchors = grown;
		p->anchors[p->nanchors++] = anchor;
	}
	free(line);
	fclose(file);
	if (code < 0 && p->nanchors == before)
		code = admin_fail(ADMIN_REFUSED, "%s: it holds no anchor of this audit", path);
	return code;
}

static int by_entry(const void *a, const void *b)
{
	const struct audit_anchor *x = a, *y = b;

	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

void audit_proofs_apply(struct audit_proofs *p, struct audit_verify_options *options)
{
	if (p->nanchors > 0)
		qsort(p->anchors, p->nanchors, sizeof *p->anchors, by_entry);
	memcpy(options->store, p->chains[0].store, sizeof options->store);
	options->keys = &p->chains[0].keys;
	options->others = p->chains + 1;
	options->nothers = p->nchains - 1;
	options->anchors = p->anchors;
	options->nanchors = p->nanchors;
}

void audit_proofs_clear(struct audit_proofs *p)
{
	free(p->anchors);
	sodium_memzero(p, sizeof *p);
}
