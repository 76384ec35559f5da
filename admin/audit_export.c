#include "config.h"

#include "admin/audit_export.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/audit_ask.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/progress.h"
#include "admin/sign_key.h"
#include "common/clock.h"
#include "schema/audit_chain.h"
#include "schema/audit_json.h"

#define FORMAT "gatewayd audit export 1"
#define MANIFEST "manifest.json"
#define SIGNATURE "manifest.sig"
#define MANIFEST_MAX (1024 * 1024)
#define SUMMED_FILES_MAX 1000

/* ---- files ----------------------------------------------------------------------------------------------------------
 */

static FILE *create_in(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w+");

	if (out == NULL)
		admin_fail(0, "cannot make %s: %s", name, strerror(errno));
	return out;
}

/* Written, and on stable storage. */
static int finish(FILE *out, const char *name)
{
	bool fine = fflush(out) == 0 && ferror(out) == 0 && fsync(fileno(out)) == 0;

	return fine ? ADMIN_FINE : admin_fail(ADMIN_REFUSED, "cannot write %s: %s", name, strerror(errno));
}

/* Of what is in the file, from its beginning; -1 if it cannot be read. */
static int64_t digest(int fd, char hex[2 * crypto_hash_sha256_BYTES + 1])
{
	crypto_hash_sha256_state state;
	uint8_t hash[crypto_hash_sha256_BYTES], block[65536];
	int64_t bytes = 0;
	ssize_t n;

	crypto_hash_sha256_init(&state);
	while ((n = pread(fd, block, sizeof block, bytes)) > 0 || (n < 0 && errno == EINTR)) {
		if (n < 0)
			continue;
		crypto_hash_sha256_update(&state, block, (unsigned long long)n);
		bytes += n;
	}
	crypto_hash_sha256_final(&state, hash);
	sodium_bin2hex(hex, 2 * crypto_hash_sha256_BYTES + 1, hash, sizeof hash);
	return n < 0 ? -1 : bytes;
}

/* ---- the manifest ---------------------------------------------------------------------------------------------------
 */

struct export {
	const struct export_order *order;
	struct rows *rows;
	FILE *events;
	const char *name; /* of the file with the rows */
	int dir;
	json_t *first, *last; /* {"id", "time"} */
	int64_t count;
	struct audit_end end;
	bool complete, sealed;
	uint8_t secret[crypto_sign_SECRETKEYBYTES];
};

static int take_row(const json_t *row, void *arg)
{
	struct export *x = arg;
	json_t *place = json_pack("{s:O?, s:O?}", "id", json_object_get(row, "id"), "time", json_object_get(row, "time"));

	rows_add(x->rows, row);
	if (x->first == NULL)
		x->first = json_incref(place);
	json_decref(x->last);
	x->last = place;
	x->count++;
	return ferror(x->events) == 0 ? -1 : admin_fail(ADMIN_REFUSED, "cannot write %s: %s", x->name, strerror(errno));
}

/* Where the chain stood when the rows had been read; null if that cannot be told. */
static json_t *chain_live(void)
{
	int code;
	json_t *status = client_ask(json_pack("{s:s}", "command", "status"), NULL, &code);
	const json_t *audit = json_object_get(json_object_get(status, "status"), "audit"), *chain = json_object_get(audit, "chain");
	json_t *head = json_is_object(chain) ? json_deep_copy(chain) : json_null();

	if (json_is_object(head))
		json_object_del(head, "first_key_waits");
	json_decref(status);
	return head;
}

static json_t *chain_stored(const char *dir)
{
	int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint8_t tag[AUDIT_DIGEST_BYTES];
	struct audit_head head;
	char mac[2 * AUDIT_MAC_BYTES + 1], store[2 * AUDIT_ID_BYTES + 1];
	bool found = chdir(dir) == 0 && audit_head_read(&head, tag) == 1;

	if (here < 0 || fchdir(here) != 0)
		found = false;
	if (here >= 0)
		close(here);
	if (!found)
		return json_null();
	return json_pack("{s:s, s:I, s:I, s:s}", "store", sodium_bin2hex(store, sizeof store, head.store, AUDIT_ID_BYTES), "entry",
			 (json_int_t)head.entry, "epoch", (json_int_t)head.epoch, "head",
			 sodium_bin2hex(mac, sizeof mac, head.mac, AUDIT_MAC_BYTES));
}

static json_t *maker(void)
{
	const struct passwd *pw = getpwuid(getuid());
	char host[256] = "";

	gethostname(host, sizeof host - 1);
	return json_pack("{s:I, s:s*, s:s*}", "uid", (json_int_t)getuid(), "user", pw == NULL ? NULL : pw->pw_name, "host", host);
}

/* The filter with its times as people read them. */
static json_t *filter_told(const json_t *filter)
{
	static const char *const times[][2] = {{"since_us", "since"}, {"until_us", "until"}};
	json_t *told = json_deep_copy(filter);
	char text[AUDIT_TIME_TEXT_MAX];

	json_object_del(told, "progress");
	for (size_t i = 0; i < sizeof times / sizeof *times; i++)
		if (json_object_get(filter, times[i][0]) != NULL) {
			json_object_del(told, times[i][0]);
			json_object_set_new(told, times[i][1],
					    json_string(audit_time_text(format_number(filter, times[i][0]), text)));
		}
	return told;
}

static json_t *manifest(const struct export *x)
{
	char made[AUDIT_TIME_TEXT_MAX], hex[2 * crypto_hash_sha256_BYTES + 1], signer[2 * crypto_sign_PUBLICKEYBYTES + 1];
	const struct export_order *o = x->order;
	uint8_t public[crypto_sign_PUBLICKEYBYTES];
	int64_t bytes = digest(fileno(x->events), hex);
	json_t *m = json_object();

	if (bytes < 0) {
		json_decref(m);
		return NULL;
	}
	crypto_sign_ed25519_sk_to_pk(public, x->secret);
	json_object_set_new(m, "format", json_string(FORMAT));
	json_object_set_new(m, "made", json_string(audit_time_text(clock_wall_us(), made)));
	json_object_set_new(m, "by", maker());
	json_object_set_new(m, "source", json_string(o->dir == NULL ? "running gateway" : "directory"));
	/* A gateway writes down that it was asked; a directory cannot. */
	json_object_set_new(m, "recorded", json_boolean(o->dir == NULL));
	json_object_set_new(m, "filter", filter_told(o->filter));
	json_object_set_new(m, "complete", json_boolean(x->complete));
	json_object_set_new(m, "cut", json_boolean(x->end.more));
	json_object_set_new(m, "rows", json_integer(x->count));
	json_object_set(m, "first", x->first == NULL ? json_null() : x->first);
	json_object_set(m, "last", x->last == NULL ? json_null() : x->last);
	json_object_set_new(m, "files", json_pack("[{s:s, s:I, s:s}]", "name", x->name, "bytes", (json_int_t)bytes, "sha256", hex));
	json_object_set_new(m, "chain", o->dir == NULL ? chain_live() : chain_stored(o->dir));
	json_object_set_new(m, "signer", json_string(sodium_bin2hex(signer, sizeof signer, public, sizeof public)));
	return m;
}

static int write_bytes(int dir, const char *name, const void *bytes, size_t len)
{
	FILE *out = create_in(dir, name);
	int code = out == NULL || fwrite(bytes, 1, len, out) != len ? admin_fail(ADMIN_REFUSED, "cannot write %s", name) : finish(out, name);

	if (out != NULL)
		fclose(out);
	return code;
}

/* The manifest comes last: a directory without one is no export. */
static int seal(struct export *x)
{
	uint8_t signature[crypto_sign_BYTES];
	json_t *m = manifest(x);
	char *text = m == NULL ? NULL : json_dumps(m, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_PRESERVE_ORDER);
	int code;

	json_decref(m);
	if (text == NULL)
		return admin_fail(ADMIN_REFUSED, "the manifest cannot be made");
	crypto_sign_detached(signature, NULL, (const uint8_t *)text, strlen(text), x->secret);
	code = write_bytes(x->dir, SIGNATURE, signature, sizeof signature);
	if (code == ADMIN_FINE)
		code = write_bytes(x->dir, MANIFEST, text, strlen(text));
	if (code == ADMIN_FINE && fsync(x->dir) != 0)
		code = admin_fail(ADMIN_REFUSED, "cannot write the directory: %s", strerror(errno));
	x->sealed = code == ADMIN_FINE;
	free(text);
	return code;
}

static int fill(struct export *x)
{
	const struct export_order *o = x->order;
	struct audit_question question = {.request = o->filter, .dir = o->dir, .purpose = "export", .take = take_row, .arg = x};
	int code = audit_ask(&question, &x->end), written;

	rows_end(x->rows);
	written = finish(x->events, x->name);
	if (written != ADMIN_FINE || !x->end.came)
		return code != ADMIN_FINE ? code : written;
	x->complete = code == ADMIN_FINE;
	code = seal(x);
	if (code == ADMIN_FINE)
		printf("%" PRId64 " rows are in %s, signed\n", x->count, o->output);
	return code == ADMIN_FINE && !x->complete ? ADMIN_REFUSED : code;
}

/* What is no export, half of one: a directory of ours, with files of ours. */
static void take_away(const struct export *x)
{
	const char *const ours[] = {x->name, SIGNATURE, MANIFEST};

	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		unlinkat(x->dir, ours[i], 0);
	if (rmdir(x->order->output) != 0)
		admin_fail(0, "cannot remove %s, which is no export: %s", x->order->output, strerror(errno));
}

int audit_export(const struct export_order *o)
{
	struct export x = {.order = o, .name = o->format == ROWS_CSV ? "events.csv" : "events.jsonl", .dir = -1};
	struct err why;
	int code = ADMIN_REFUSED;

	if (sign_key_read(o->key, x.secret, &why) != 0)
		return admin_fail(ADMIN_REFUSED, "%s", why.text);
	progress_watch();
	if (mkdir(o->output, 0700) != 0)
		admin_fail(0, "cannot make the directory %s: %s", o->output, strerror(errno));
	else if ((x.dir = open(o->output, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) < 0)
		admin_fail(0, "cannot open the directory %s: %s", o->output, strerror(errno));
	else if ((x.events = create_in(x.dir, x.name)) != NULL && (x.rows = rows_new_to(x.events, o->format, 0, false, o->columns)) != NULL)
		code = fill(&x);
	rows_free(&x.rows);
	if (x.events != NULL)
		fclose(x.events);
	if (x.dir >= 0 && !x.sealed)
		take_away(&x);
	if (x.dir >= 0)
		close(x.dir);
	progress_unwatch();
	json_decref(x.first);
	json_decref(x.last);
	sodium_memzero(x.secret, sizeof x.secret);
	return code;
}

int audit_export_new_key(int argc, char **argv)
{
	uint8_t public[crypto_sign_PUBLICKEYBYTES];
	char hex[2 * crypto_sign_PUBLICKEYBYTES + 1], name[4200];
	struct err why;

	if (argc != 3)
		return admin_fail(ADMIN_USAGE, "--new-key FILE stands alone: where the key is to be; see gatewayctl audit export --help");
	snprintf(name, sizeof name, "%s.pub", argv[2]);
	if (sign_key_make(argv[2], &why) != 0 || sign_key_public(name, public, &why) != 0)
		return admin_fail(ADMIN_REFUSED, "%s", why.text);
	printf("%s signs exports from now on: keep it to yourself.\n%s is for those who receive them; hand it over so that they know it is "
	       "yours.\nIts digits: %s\n",
	       argv[2], name, sodium_bin2hex(hex, sizeof hex, public, sizeof public));
	return ADMIN_FINE;
}

/* ---- the receiver ---------------------------------------------------------------------------------------------------
 */

static char *read_in(int dir, const char *name, size_t max, size_t *len)
{
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	char *bytes = fd < 0 ? NULL : malloc(max + 1);
	ssize_t n = bytes == NULL ? -1 : 0;

	*len = 0;
	while (n >= 0 && *len <= max && (n = read(fd, bytes + *len, max + 1 - *len)) > 0)
		*len += (size_t)n;
	if (n < 0 || *len > max) {
		admin_fail(0, "cannot read %s: %s", name, n < 0 ? strerror(errno) : "it is too large");
		free(bytes);
		bytes = NULL;
	} else {
		bytes[*len] = '\0';
	}
	if (fd >= 0)
		close(fd);
	return bytes;
}

/* A file of the manifest: its name leads nowhere else, its bytes are those that were signed for. */
static bool file_fits(int dir, const json_t *file)
{
	const char *name = json_string_value(json_object_get(file, "name"));
	const char *sum = json_string_value(json_object_get(file, "sha256"));
	char hex[2 * crypto_hash_sha256_BYTES + 1], safe[300];
	struct stat st;
	int fd;
	int64_t bytes;

	if (name == NULL || sum == NULL || *name == '\0' || *name == '.' || strchr(name, '/') != NULL || strlen(name) > 255) {
		admin_fail(0, "the manifest names a file that cannot be in an export");
		return false;
	}
	format_safe(name, safe, sizeof safe);
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		admin_fail(0, "%s is missing, or is no file", safe);
		if (fd >= 0)
			close(fd);
		return false;
	}
	bytes = digest(fd, hex);
	close(fd);
	if (bytes != format_number(file, "bytes") || strcmp(hex, sum) != 0) {
		admin_fail(0, "%s is NOT what was signed: it was changed", safe);
		return false;
	}
	return true;
}

static bool is_named(const json_t *files, const char *name)
{
	char buf[FORMAT_TEXT_MAX];
	const json_t *file;
	size_t i;

	if (strcmp(name, MANIFEST) == 0 || strcmp(name, SIGNATURE) == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return true;
	json_array_foreach(files, i, file) if (strcmp(format_member(file, "name", buf), name) == 0) return true;
	return false;
}

/* A file that nobody signed would pass for a part of what was. */
static int refuse_others(int dir, const json_t *files)
{
	int code = ADMIN_FINE, fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	char safe[300];

	if (list == NULL) {
		if (fd >= 0)
			close(fd);
		return admin_fail(ADMIN_REFUSED, "cannot list the directory: %s", strerror(errno));
	}
	while (code == ADMIN_FINE && (entry = readdir(list)) != NULL)
		if (!is_named(files, entry->d_name))
			code = admin_fail(ADMIN_REFUSED, "%s is NOT part of what was signed: take it away",
					  format_safe(entry->d_name, safe, sizeof safe));
	closedir(list);
	return code;
}

static int verify_files(int dir, const json_t *m)
{
	const json_t *files = json_object_get(m, "files"), *file;
	size_t i, wrong = 0;
	char buf[FORMAT_TEXT_MAX], safe[300];

	if (strcmp(format_member(m, "format", buf), FORMAT) != 0 || json_array_size(files) == 0 ||
	    json_array_size(files) > SUMMED_FILES_MAX)
		return admin_fail(ADMIN_REFUSED, "the manifest is signed, but is of another format");
	json_array_foreach(files, i, file) wrong += !file_fits(dir, file);
	if (wrong > 0 || refuse_others(dir, files) != ADMIN_FINE)
		return ADMIN_REFUSED;
	printf("The export is what was signed: %" PRId64 " rows, made %s%s%s.\n", format_number(m, "rows"),
	       format_safe(format_member(m, "made", buf), safe, sizeof safe),
	       json_is_true(json_object_get(m, "cut")) ? "; there were more, it was cut at its limit" : "",
	       json_is_true(json_object_get(m, "complete")) ? "" : "; but not all of the audit could be read then");
	return ADMIN_FINE;
}

static int verify_in(int dir, const uint8_t key[crypto_sign_PUBLICKEYBYTES])
{
	size_t len, signature_len;
	char *text = read_in(dir, MANIFEST, MANIFEST_MAX, &len);
	char *signature = text == NULL ? NULL : read_in(dir, SIGNATURE, crypto_sign_BYTES, &signature_len);
	int code = ADMIN_REFUSED;

	if (signature == NULL)
		;
	else if (signature_len != crypto_sign_BYTES ||
		 crypto_sign_verify_detached((const uint8_t *)signature, (const uint8_t *)text, len, key) != 0) {
		admin_fail(0, "the manifest was NOT signed by this key: it was changed, or somebody else made it");
	} else {
		json_t *m = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);

		code = verify_files(dir, m);
		json_decref(m);
	}
	free(text);
	free(signature);
	return code;
}

/* The directory, also by the name of the manifest in it. */
static int open_export(const char *path)
{
	const char *slash = strrchr(path, '/'), *base = slash == NULL ? path : slash + 1;
	char dir[4096] = ".";

	if (strcmp(base, MANIFEST) != 0)
		snprintf(dir, sizeof dir, "%s", path);
	else if (slash != NULL)
		snprintf(dir, sizeof dir, "%.*s/", (int)(slash - path < 4000 ? slash - path : 4000), path);
	return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int audit_export_verify(int argc, char **argv)
{
	static const struct option options[] = {
		{"verify", required_argument, NULL, 'v'}, {"signer", required_argument, NULL, 's'}, {NULL, 0, NULL, 0}};
	const char *path = NULL, *signer = NULL;
	uint8_t key[crypto_sign_PUBLICKEYBYTES];
	struct err why;
	int c, dir, code;

	optind = 0;
	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1)
		if (c == 'v')
			path = optarg;
		else if (c == 's')
			signer = optarg;
		else
			return ADMIN_USAGE;
	if (optind < argc || path == NULL)
		return admin_fail(ADMIN_USAGE, "--verify takes a directory, and --signer besides");
	if (signer == NULL)
		return admin_fail(ADMIN_USAGE, "--signer FILE|DIGITS is missing: the public key of whom you expect; a manifest can name any");
	if (sign_key_public(signer, key, &why) != 0)
		return admin_fail(ADMIN_REFUSED, "%s", why.text);
	dir = open_export(path);
	if (dir < 0)
		return admin_fail(ADMIN_REFUSED, "cannot open the directory %s: %s", path, strerror(errno));
	code = verify_in(dir, key);
	close(dir);
	return code;
}
