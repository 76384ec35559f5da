/* What an event says beyond its columns:
 * {"candidates":[{"address":"..","rule":".."}],"groups":[".."],"monitors":[{"rule":"..","would":"deny"}]}
 * Only what is not empty is there. */
#include "config.h"

#include <jansson.h>
#include <string.h>

#include "common/log.h"
#include "common/text.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

static json_t *candidates(const struct session *s, const struct policy_image *image)
{
	const struct setup *setup = s->setup;
	json_t *list = json_array();
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < setup->ncandidates; i++)
		json_array_append_new(list, json_pack("{s:s,s:s}", "address", addr_format(&setup->candidates[i].address, text),
						      "rule", policy_rule_name(image, setup->candidates[i].rule)));
	return list;
}

static json_t *groups(const struct session *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->setup->ngroups; i++) {
		char safe[4 * AUTH_GROUP_NAME_MAX + 4];
		const char *name = s->setup->groups[i];

		json_array_append_new(list, json_string(text_escape(name, strlen(name), safe, sizeof safe)));
	}
	return list;
}

static json_t *monitors(const struct policy_image *image, const struct policy_decision *d)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < d->nmonitors; i++)
		json_array_append_new(list, json_pack("{s:s,s:s}", "rule", policy_rule_name(image, d->monitors[i].rule), "would",
						      d->monitors[i].verdict == POLICY_ALLOW ? "allow" : "deny"));
	return list;
}

static void set_unless_empty(json_t *object, const char *key, json_t *list)
{
	if (json_array_size(list) > 0)
		json_object_set(object, key, list);
	json_decref(list);
}

static bool dump(const json_t *root, struct audit_event *e)
{
	size_t len = json_dumpb(root, e->detail, sizeof e->detail - 1, JSON_COMPACT);

	e->detail[len < sizeof e->detail ? len : 0] = '\0';
	return len < sizeof e->detail;
}

void detail_write(const struct session *s, const struct policy_image *image, const struct policy_decision *d, struct audit_event *e)
{
	json_t *root = json_object();

	set_unless_empty(root, "candidates", candidates(s, image));
	set_unless_empty(root, "groups", groups(s));
	set_unless_empty(root, "monitors", monitors(image, d));
	/* Whatever does not fit, the candidates do: 64 addresses and names of rules, of 63 bytes each. */
	if (json_object_size(root) > 0 && !dump(root, e)) {
		json_object_del(root, "monitors");
		json_object_set_new(root, "groups", json_string("too many to tell"));
		if (!dump(root, e))
			log_error("the detail of a record is too long");
	}
	json_decref(root);
}
