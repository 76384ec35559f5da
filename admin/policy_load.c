#include "config.h"

#include "admin/policy_load.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "common/addr.h"
#include "common/sealed.h"
#include "schema/policy_store.h"

void loaded_clear(struct loaded *l)
{
	policy_image_close(&l->image);
	policy_geo_close(&l->geo);
	policy_geo_close(&l->asn);
	policy_tree_free(l->tree);
	policy_diagnostics_free(&l->diagnostics);
	free(l->data);
	free(l->geo_data);
	free(l->asn_data);
	free(l->local);
	free(l->own_ports);
	*l = (struct loaded){0};
}

static int complain(const char *path, const char *what)
{
	admin_fail(0, "%s: %s", path, what);
	return -1;
}

/* ---- files --------------------------------------------------------------------------------------------------------------
 */

static int read_all(int fd, size_t max, char **text, size_t *len, struct err *why)
{
	size_t room = 0;
	ssize_t n;

	*text = NULL;
	*len = 0;
	for (;;) {
		if (room - *len < 65536) {
			room = room == 0 ? 65536 : room * 2;
			char *grown = realloc(*text, room);

			if (grown == NULL || *len > max) {
				free(grown == NULL ? *text : grown);
				return err_set(why, "the file has more than %zu MB", max >> 20);
			}
			*text = grown;
		}
		n = read(fd, *text + *len, room - *len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		*len += (size_t)n;
	}
	if (n == 0 && *len <= max) {
		(*text)[*len] = '\0'; /* there is room: reading has just been offered some */
		return 0;
	}
	if (n == 0)
		err_set(why, "the file has more than %zu MB", max >> 20);
	else
		err_set(why, "%s", strerror(errno));
	free(*text);
	return -1;
}

/* Reads the whole of a regular file or pipe ("-" is standard input). */
static int read_policy(const char *path, char **text, size_t *len)
{
	int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct err why;
	struct stat st;

	if (fd < 0)
		return complain(path, strerror(errno));
	if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode) ||
	    (S_ISCHR(st.st_mode) && !isatty(fd) && strcmp(path, "-") != 0)) {
		close(fd);
		return complain(path, "this is no file with a policy");
	}
	int rc = read_all(fd, BUNDLE_POLICY_MAX, text, len, &why);

	close(fd);
	return rc == 0 ? 0 : complain(path, why.text);
}

static int read_named(const char *path, char **bytes, size_t *len, struct err *why)
{
	struct stat st;
	int rc;
	/* A pipe without a writer must not keep anybody waiting. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		rc = err_set(why, "%s: %s", path, strerror(errno));
	else if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		rc = err_set(why, "%s is no regular file", path);
	else
		rc = read_all(fd, BUNDLE_FILES_BYTES_MAX, bytes, len, why);
	if (fd >= 0)
		close(fd);
	return rc;
}

int load_text(const char *path, char **text, size_t *len, struct err *why)
{
	if (read_named(path, text, len, why) != 0)
		return -1;
	if (*len <= BUNDLE_POLICY_MAX)
		return 0;
	free(*text);
	return err_set(why, "the file has more than %zu MB", BUNDLE_POLICY_MAX >> 20);
}

/* Gives the policy the files it names: with the caller's rights, relative to the file that names them. */
static int provide(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name,
		   struct err *why)
{
	(void)arg;
	*name = bundle_name(from, path);
	if (*name == NULL)
		return err_set(why, "there is no memory left");
	if (read_named(*name, bytes, len, why) == 0)
		return 0;
	free(*name);
	return -1;
}

/* Said as a policy would; whatever the path holds, it comes to provide_list() as it is. */
static int provide_list(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name, struct err *why)
{
	const char *file = arg;

	(void)from;
	(void)path;
	if (read_named(file, bytes, len, why) != 0)
		return -1;
	*name = strdup(file);
	return *name == NULL ? err_set(why, "there is no memory left") : 0;
}

struct policy_tree *list_read(const char *path, const char *kind, struct policy_diagnostics *d)
{
	struct policy_provider provider = {.read = provide_list, .arg = (void *)(uintptr_t)path};
	char text[64];
	int len = snprintf(text, sizeof text, "set list %s file \"list\"\n", kind);
	struct policy_tree *t = policy_parse_with("the command line", text, (size_t)len, &provider, d);

	policy_check(t, d);
	return t;
}

static const char *shown_name(const char *path)
{
	return strcmp(path, "-") == 0 ? "standard input" : path;
}

/* ---- into an image ------------------------------------------------------------------------------------------------------
 */

static int load_geo(const char *path, int (*compile)(const char *, uint8_t **, size_t *, struct err *), uint8_t **data,
		    struct policy_geo **geo)
{
	struct err why;
	size_t len;

	if (compile(path, data, &len, &why) != 0 || policy_geo_verify(*data, len, &why) != 0)
		return complain(path, why.text);
	*geo = policy_geo_open(*data, len, &why);
	return *geo == NULL ? complain(path, why.text) : 0;
}

int load_tables(const char *geoip, const char *asn, struct loaded *l)
{
	if (geoip != NULL && load_geo(geoip, policy_geo_compile, &l->geo_data, &l->geo) != 0)
		return -1;
	return asn != NULL ? load_geo(asn, policy_asn_compile, &l->asn_data, &l->asn) : 0;
}

static int make_image(struct loaded *l)
{
	struct err why;

	policy_check(l->tree, &l->diagnostics);
	if (l->diagnostics.errors > 0 || policy_compile(l->tree, &l->data, &l->len, &l->diagnostics) != 0)
		return 0;
	if (policy_image_verify(l->data, l->len, &why) != 0)
		return complain("the image", why.text);
	l->image = policy_image_open(l->data, l->len, &why);
	return l->image == NULL ? complain("the image", why.text) : 0;
}

int load_file(const char *path, const char *geoip, const char *asn, struct loaded *l)
{
	static const struct policy_provider provider = {.read = provide};
	char *text;
	size_t len;

	*l = (struct loaded){0};
	if (read_policy(path, &text, &len) != 0)
		return -1;
	l->tree = policy_parse_with(shown_name(path), text, len, &provider, &l->diagnostics);
	free(text);
	return load_tables(geoip, asn, l) == 0 ? make_image(l) : -1;
}

/* The gateway is on this host: whoever reaches its socket is, too. */
static void learn_listeners(const struct fetched *f, struct loaded *l)
{
	const json_t *ports = json_object_get(f->reply, "own_ports");
	struct ifaddrs *list = NULL;
	struct endpoint ep;
	size_t count = 0;

	if (getifaddrs(&list) != 0)
		list = NULL;
	for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next)
		count++;
	l->local = calloc(count + 1, sizeof *l->local);
	l->own_ports = calloc(json_array_size(ports) + 1, sizeof *l->own_ports);
	for (const struct ifaddrs *i = list; i != NULL && l->local != NULL; i = i->ifa_next)
		if (i->ifa_addr != NULL && endpoint_from_sockaddr(i->ifa_addr, sizeof(struct sockaddr_in6), &ep))
			l->local[l->nlocal++] = ep.addr;
	for (size_t i = 0; i < json_array_size(ports) && l->own_ports != NULL; i++)
		l->own_ports[l->nown_ports++] = (uint16_t)json_integer_value(json_array_get(ports, i));
	freeifaddrs(list);
}

int load_bundle(const struct bundle *b, struct loaded *l)
{
	*l = (struct loaded){0};
	l->tree = bundle_parse(b, &l->diagnostics);
	return make_image(l);
}

int load_revision(uint32_t id, struct loaded *l)
{
	struct fetched f;
	int code = fetch_revision(id, &f);

	*l = (struct loaded){0};
	if (code != ADMIN_FINE)
		return code;
	l->tree = bundle_parse(&f.bundle, &l->diagnostics);
	learn_listeners(&f, l);
	fetched_clear(&f);
	return make_image(l) == 0 ? ADMIN_FINE : ADMIN_REFUSED;
}

static void keep_file(const struct policy_file *f, void *arg)
{
	struct bundle *b = arg;
	char *name = strdup(f->name), *text = malloc(f->len + 1);

	if (name != NULL && text != NULL && b->count < BUNDLE_FILES_MAX) {
		memcpy(text, f->text, f->len);
		text[f->len] = '\0';
		b->files[b->count++] = (struct bundle_file){name, text, f->len};
		return;
	}
	free(name);
	free(text);
}

static int parse_stored(struct policy_store *store, uint32_t id, struct loaded *l, struct err *why)
{
	struct bundle b = {.files = calloc(BUNDLE_FILES_MAX, sizeof *b.files)};
	struct policy_revision *r = malloc(sizeof *r);
	char *text = NULL;
	int rc = -1;

	if (b.files == NULL || r == NULL)
		err_set(why, "out of memory");
	else if (id == 0 && policy_store_active(store, &id, why) != 0)
		;
	else if ((rc = policy_store_get(store, id, r, &text, NULL, why)) == 0)
		rc = err_set(why, "it has no revision %u", id);
	if (rc == 1) {
		b.files[b.count++] = (struct bundle_file){r->name[0] == '\0' ? strdup("policy") : strdup(r->name), text, r->len};
		rc = policy_store_files(store, id, keep_file, &b, why);
		if (rc == 0 && b.files[0].name != NULL && b.count == r->nfiles + 1)
			l->tree = bundle_parse(&b, &l->diagnostics);
		else if (rc == 0)
			rc = err_set(why, "not all files of revision %u can be read", id);
	}
	for (size_t i = 0; i < b.count; i++) {
		free((void *)(uintptr_t)b.files[i].name);
		free((void *)(uintptr_t)b.files[i].text);
	}
	free(b.files);
	free(r);
	return rc;
}

int load_stored(const char *path, uint32_t id, struct loaded *l)
{
	struct err why;
	struct policy_store *store = policy_store_open(path, true, &why);
	int rc = store == NULL ? -1 : 0;

	*l = (struct loaded){0};
	if (rc == 0)
		rc = parse_stored(store, id, l, &why);
	policy_store_close(&store);
	if (rc != 0)
		return admin_fail(ADMIN_REFUSED, "the store of policies: %s", why.text);
	return make_image(l) == 0 ? ADMIN_FINE : ADMIN_REFUSED;
}

/* ---- a policy and its files, to be handed over --------------------------------------------------------------------------
 */

struct gathering {
	struct gathered *g;
	const char *path; /* of the policy, as the caller gave it */
};

/* A name is written from where the policy lies, so that the store says nothing of the caller's directories. */
static int gather_file(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name, struct err *why)
{
	struct gathering *all = arg;
	struct gathered *g = all->g;
	char *key = bundle_name(from, path), *file = key == NULL ? NULL : bundle_name(all->path, key), *copy = NULL;
	const struct bundle_file *known;
	int rc = -1;

	known = key == NULL ? NULL : bundle_find(&(struct bundle){g->files, g->count}, key);
	if (file == NULL)
		err_set(why, "there is no memory left");
	else if (known == NULL && g->count == BUNDLE_FILES_MAX)
		err_set(why, "a policy reads at most %d other files", BUNDLE_FILES_MAX - 1);
	else if (known == NULL && read_named(file, &copy, len, why) == 0) {
		g->files[g->count] = (struct bundle_file){strdup(key), copy, *len};
		known = &g->files[g->count++];
	}
	if (known != NULL && known->name != NULL && (*bytes = malloc(known->len + 1)) != NULL) {
		memcpy(*bytes, known->text, known->len);
		*len = known->len;
		*name = key;
		key = NULL;
		rc = 0;
	} else if (known != NULL) {
		err_set(why, "there is no memory left");
	}
	free(key);
	free(file);
	return rc;
}

/* Messages speak of the paths that the caller knows. */
static void tell_paths(struct gathered *g, const char *path)
{
	for (size_t i = 0; i < g->diagnostics.count; i++) {
		struct policy_diagnostic *d = &g->diagnostics.items[i];
		char *shown = strcmp(d->file, g->files[0].name) == 0 ? strdup(shown_name(path)) : bundle_name(path, d->file);

		if (shown == NULL)
			continue;
		free(d->file);
		d->file = shown;
	}
}

struct gathered *gather(const char *path)
{
	struct gathered *g = calloc(1, sizeof *g);
	struct gathering all = {g, strcmp(path, "-") == 0 ? "stdin" : path};
	struct policy_provider provider = {.read = gather_file, .arg = &all};
	const char *slash = strrchr(all.path, '/');
	char *text;

	if (g == NULL || read_policy(path, &text, &g->files[0].len) != 0) {
		free(g);
		return NULL;
	}
	g->files[0].text = text;
	g->files[0].name = strdup(slash == NULL ? all.path : slash + 1);
	g->count = 1;
	if (g->files[0].name == NULL) {
		gathered_free(&g);
		complain(path, "out of memory");
		return NULL;
	}
	g->tree = policy_parse_with(g->files[0].name, text, g->files[0].len, &provider, &g->diagnostics);
	policy_check(g->tree, &g->diagnostics);
	tell_paths(g, path);
	return g;
}

void gathered_free(struct gathered **gathered)
{
	struct gathered *g = *gathered;

	*gathered = NULL;
	if (g == NULL)
		return;
	for (size_t i = 0; i < g->count; i++) {
		free((void *)(uintptr_t)g->files[i].name);
		free((void *)(uintptr_t)g->files[i].text);
	}
	policy_tree_free(g->tree);
	policy_diagnostics_free(&g->diagnostics);
	free(g);
}

/* ---- the store ----------------------------------------------------------------------------------------------------------
 */

int fetch_revision(uint32_t id, struct fetched *out)
{
	int fd = -1, code;
	struct sealed s;
	struct err why;

	*out = (struct fetched){0};
	out->reply = client_ask(json_pack("{s:s, s:I}", "command", "policy-get", "revision", (json_int_t)id), &fd, &code);
	if (out->reply == NULL)
		return code;
	if (fd < 0 || sealed_map(fd, BUNDLE_BYTES_MAX, &s, &why) != 0 || bundle_read(s.data, s.len, &out->bundle, &why) != 0) {
		code = admin_fail(ADMIN_REFUSED, "gatewayd gave no policy: %s", fd < 0 ? "nothing came" : why.text);
		json_decref(out->reply);
	} else {
		out->data = s.data;
		out->len = s.len;
		code = ADMIN_FINE;
	}
	if (fd >= 0)
		close(fd);
	return code;
}

void fetched_clear(struct fetched *f)
{
	struct sealed s = {.data = f->data, .len = f->len};

	bundle_clear(&f->bundle);
	sealed_unmap(&s);
	json_decref(f->reply);
	*f = (struct fetched){0};
}

/* ---- words --------------------------------------------------------------------------------------------------------------
 */

void print_diagnostics(const struct policy_diagnostics *d, FILE *out)
{
	for (size_t i = 0; i < d->count; i++) {
		char *text = policy_diagnostic_format(&d->items[i]);

		fputs(text, out);
		free(text);
	}
}

json_t *diagnostics_json(const struct policy_diagnostics *d)
{
	json_t *list = json_array();

	for (size_t i = 0; i < d->count; i++) {
		const struct policy_diagnostic *item = &d->items[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s*, s:i, s:i, s:s*}", "severity",
						      item->severity == POLICY_ERROR ? "error" : "warning", "code",
						      item->code, "file", item->file, "line", (int)item->line, "column",
						      (int)item->column, "message", item->message));
	}
	return list;
}

void print_differences(const struct policy_differences *count)
{
	if (count->decided == 0)
		printf("no difference in what is decided was found");
	else
		printf("%zu difference%s in what is decided found", count->decided, count->decided == 1 ? "" : "s");
	if (count->said > 0)
		printf("; %zu statement%s differently", count->said, count->said == 1 ? " reads" : "s read");
	putchar('\n');
}

bool group_is_known(const char *group, void *arg)
{
	const char *file = arg;
	char *line = NULL;
	size_t room = 0, len = strlen(group);
	bool known = false;

	if (file == NULL) {
		const struct group *g = getgrnam(group);

		/* A name service that minds no case finds what a policy has to write otherwise. */
		return g != NULL && strcmp(g->gr_name, group) == 0;
	}
	FILE *in = fopen(file, "re");

	/* Whole names up to the colon, as group(5) has them. */
	while (in != NULL && !known && getline(&line, &room, in) > 0)
		known = strncmp(line, group, len) == 0 && line[len] == ':';
	free(line);
	if (in != NULL)
		fclose(in);
	return known;
}

bool revision_number(const char *text, uint32_t *id)
{
	unsigned long value;

	if (*text == '\0' || strspn(text, "0123456789") != strlen(text) || strlen(text) > 10)
		return false;
	value = strtoul(text, NULL, 10);
	*id = (uint32_t)value;
	return value <= UINT32_MAX;
}
