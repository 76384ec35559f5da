#include "config.h"

#include "gatewayd/worker/resolver.h"

#include <ares.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/conf.h"
#include "gatewayd/worker/hosts.h"
#include "gatewayd/worker/name_cache.h"

#define SYSTEM_FILE_MAX (4 * 1024 * 1024)

/* A socket that c-ares wants watched. */
struct watched {
	LIST_ENTRY(watched) next;
	struct resolver *resolver;
	ares_socket_t fd;
	struct event event;
};

/* One who waits. */
struct lookup {
	struct question *question;
	lookup_done *done;
	void *arg;
	TAILQ_ENTRY(lookup) next;
};

/* What is asked of a name server, for all who want to know it. */
struct question {
	struct resolver *resolver;
	LIST_ENTRY(question) next;
	LIST_ENTRY(question) same; /* while fresh */
	bool fresh;		   /* others may join, and the answer may be kept */
	STAILQ_ENTRY(question) later; /* while it waits for other name servers */
	TAILQ_HEAD(, lookup) lookups;
	struct name name;
	struct moment asked;
	struct event deliver;
	struct answer answer; /* once it is there */
};

/* Told of one answer in a turn of the loop: each decides, and maybe connects. */
#define DELIVERIES_MAX 32
/* Of questions under way, by name. */
#define CHAINS 256

#define SERVERS_TEXT_MAX (CONFIG_RESOLVERS_MAX * (ENDPOINT_TEXT_MAX + 1))

struct resolver {
	struct event_base *base;
	ares_channel channel;
	LIST_HEAD(, watched) watched;
	struct event timer;
	struct hosts *hosts; /* NULL: not used */
	struct name_cache *cache;
	uint64_t hits, joined, misses;
	LIST_HEAD(, question) questions;
	LIST_HEAD(, question) under_way[CHAINS];
	bool ending;
	char servers[SERVERS_TEXT_MAX];
	/* c-ares takes no other servers while queries run: new ones wait until those are through. */
	bool changing;
	unsigned running;
	STAILQ_HEAD(, question) waiting;
};

/* ---- c-ares and the loop ------------------------------------------------------------------------------------- */

static void arm_timer(struct resolver *r)
{
	struct timeval longest = {.tv_sec = 1}, tv, *next = ares_timeout(r->channel, &longest, &tv);

	evtimer_add(&r->timer, next);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct resolver *r = arg;

	(void)fd, (void)what;
	ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	if (!LIST_EMPTY(&r->watched))
		arm_timer(r);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct watched *w = arg;
	struct resolver *r = w->resolver;

	/* w may be gone when this returns. */
	ares_process_fd(r->channel, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = arg;
	struct watched *w;
	short what = (short)((readable ? EV_READ : 0) | (writable ? EV_WRITE : 0) | EV_PERSIST);

	LIST_FOREACH (w, &r->watched, next)
		if (w->fd == fd)
			break;
	if (w != NULL)
		event_del(&w->event);
	if (!readable && !writable) {
		if (w != NULL) {
			LIST_REMOVE(w, next);
			free(w);
		}
		return;
	}
	if (w == NULL) {
		w = calloc(1, sizeof *w);
		if (w == NULL) {
			log_error("out of memory for a resolver socket");
			return; /* the query times out */
		}
		w->resolver = r;
		w->fd = fd;
		LIST_INSERT_HEAD(&r->watched, w, next);
	}
	event_assign(&w->event, r->base, fd, what, on_socket, w);
	event_add(&w->event, NULL);
	arm_timer(r);
}

/* ---- configuration --------------------------------------------------------------------------------------------- */

static void ask(struct question *q);

static int apply_servers(struct resolver *r)
{
	struct question *q;
	int rc = ares_set_servers_ports_csv(r->channel, r->servers);

	r->changing = false;
	while ((q = STAILQ_FIRST(&r->waiting)) != NULL) {
		STAILQ_REMOVE_HEAD(&r->waiting, later);
		ask(q);
	}
	if (rc != ARES_SUCCESS)
		log_error("cannot use the name servers %s: %s", r->servers, ares_strerror(rc));
	return rc;
}

static void make_stale(struct question *q)
{
	if (q->fresh)
		LIST_REMOVE(q, same);
	q->fresh = false;
}

/* What was asked before goes to those alone who asked for it. */
void resolver_forget(struct resolver *r)
{
	struct question *q;

	name_cache_flush(r->cache);
	LIST_FOREACH (q, &r->questions, next)
		make_stale(q);
}

void resolver_forget_name(struct resolver *r, const char *text)
{
	struct name name;

	name.len = (uint8_t)strnlen(text, NAME_MAX_LEN);
	memcpy(name.text, text, name.len);
	name_cache_drop(r->cache, &name);
}

static int set_servers(struct resolver *r, const struct endpoint *servers, size_t n)
{
	char csv[SERVERS_TEXT_MAX] = "", text[ENDPOINT_TEXT_MAX];
	size_t used = 0;

	for (size_t i = 0; i < n && i < CONFIG_RESOLVERS_MAX; i++)
		used += (size_t)snprintf(csv + used, sizeof csv - used, "%s%s", i == 0 ? "" : ",",
					 endpoint_format(&servers[i], text));
	if (strcmp(csv, r->servers) == 0)
		return ARES_SUCCESS;
	memcpy(r->servers, csv, sizeof csv);
	r->changing = true;
	return r->running == 0 ? apply_servers(r) : ARES_SUCCESS;
}

struct resolver *resolver_new(struct event_base *base, const struct config *config, struct err *why)
{
	struct resolver *r = calloc(1, sizeof *r);
	struct ares_options options = {
		.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
		.timeout = (int)config->resolver_timeout_ms,
		.tries = (int)config->resolver_tries,
		.ndots = 1,
		.sock_state_cb = on_socket_state,
		.lookups = (char *)(uintptr_t)"b", /* DNS alone: hosts are looked up here */
	};
	/* Everything is set, no domains among it: then c-ares reads no file, and knows no search list. */
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_SOCK_STATE_CB |
		   ARES_OPT_LOOKUPS | ARES_OPT_DOMAINS | ARES_OPT_SORTLIST | ARES_OPT_SERVERS;
	struct in_addr localhost = {.s_addr = htonl(INADDR_LOOPBACK)};
	int rc;

	if (r == NULL) {
		err_set(why, "out of memory for the resolver");
		return NULL;
	}
	r->base = base;
	LIST_INIT(&r->watched);
	STAILQ_INIT(&r->waiting);
	LIST_INIT(&r->questions);
	r->cache = name_cache_new(config->resolver_cache, (int64_t)config->resolver_cache_longest_ms * 1000);
	if (r->cache == NULL) {
		err_set(why, "out of memory for the resolver");
		free(r);
		return NULL;
	}
	evtimer_assign(&r->timer, base, on_timer, r);
	options.sock_state_cb_data = r;
	options.servers = &localhost; /* until the real ones are set below */
	options.nservers = 1;
	/* Never the environment's LOCALDOMAIN or RES_OPTIONS. */
	unsetenv("LOCALDOMAIN");
	unsetenv("RES_OPTIONS");
	rc = ares_library_init(ARES_LIB_INIT_ALL);
	if (rc == ARES_SUCCESS)
		rc = ares_init_options(&r->channel, &options, mask);
	if (rc == ARES_SUCCESS && config->nresolvers > 0)
		rc = set_servers(r, config->resolvers, config->nresolvers);
	if (rc != ARES_SUCCESS) {
		err_set(why, "cannot start the resolver: %s", ares_strerror(rc));
		name_cache_free(&r->cache);
		free(r);
		return NULL;
	}
	return r;
}

static void question_free(struct question *q);

void resolver_free(struct resolver **r)
{
	struct question *q;

	if (*r == NULL)
		return;
	(*r)->ending = true;
	ares_destroy((*r)->channel);
	while ((q = LIST_FIRST(&(*r)->questions)) != NULL)
		question_free(q);
	evtimer_del(&(*r)->timer);
	hosts_free(&(*r)->hosts);
	name_cache_free(&(*r)->cache);
	free(*r);
	*r = NULL;
}

void resolver_use_system(struct resolver *r, int resolv_conf_fd, int hosts_fd)
{
	struct endpoint servers[CONFIG_RESOLVERS_MAX];
	struct sealed conf, hosts;
	struct err why;

	if (sealed_map(resolv_conf_fd, SYSTEM_FILE_MAX, &conf, &why) != 0) {
		log_error("%s", why.text);
		return;
	}
	if (sealed_map(hosts_fd, SYSTEM_FILE_MAX, &hosts, &why) != 0) {
		log_error("%s", why.text);
		sealed_unmap(&conf);
		return;
	}
	size_t n = resolv_conf_servers(conf.data, conf.len, servers, CONFIG_RESOLVERS_MAX);

	/* resolv.conf(5): without a nameserver line, the name server of this host. */
	if (n == 0)
		servers[n++] = (struct endpoint){.addr = addr_v4(INADDR_LOOPBACK), .port = 53};
	resolver_forget(r);
	set_servers(r, servers, n);
	hosts_free(&r->hosts);
	r->hosts = hosts_parse(hosts.data, hosts.len);
	sealed_unmap(&conf);
	sealed_unmap(&hosts);
}

/* ---- looking up --------------------------------------------------------------------------------------------------- */

static void fail(struct answer *a, enum reason reason, const char *detail)
{
	memset(a, 0, sizeof *a);
	a->failure = reason;
	a->detail = detail;
}

static void question_free(struct question *q)
{
	struct lookup *l;

	make_stale(q);
	while ((l = TAILQ_FIRST(&q->lookups)) != NULL) {
		TAILQ_REMOVE(&q->lookups, l, next);
		free(l);
	}
	LIST_REMOVE(q, next);
	event_del(&q->deliver);
	free(q);
}

static void on_deliver(evutil_socket_t fd, short what, void *arg)
{
	struct question *q = arg;
	struct resolver *r = q->resolver;
	struct timeval at_once = {0};
	struct lookup *l;

	(void)fd, (void)what;
	make_stale(q); /* who asks from now on finds it kept, or asks anew */
	for (unsigned n = 0; n < DELIVERIES_MAX && (l = TAILQ_FIRST(&q->lookups)) != NULL; n++) {
		lookup_done *done = l->done;
		void *whose = l->arg;

		TAILQ_REMOVE(&q->lookups, l, next);
		free(l);
		done(&q->answer, whose);
	}
	if (!TAILQ_EMPTY(&q->lookups)) {
		evtimer_add(&q->deliver, &at_once); /* but after others had their turn */
		return;
	}
	question_free(q);
	if (r->changing && r->running == 0)
		apply_servers(r);
}

static bool add_alias(struct answer *a, const struct question *q, const char *text)
{
	struct name name;
	struct addr unused;
	const char *why;

	if (name_canonical(text, strlen(text), &name, &unused, &why) != NAME_IS_NAME)
		return false;
	if (strcmp(name.text, q->name.text) == 0)
		return true;
	for (size_t i = 0; i < a->naliases; i++)
		if (strcmp(a->aliases[i].text, name.text) == 0)
			return true;
	if (a->naliases == ANSWER_ALIASES_MAX)
		return false;
	a->aliases[a->naliases++] = name;
	return true;
}

static bool add_address(struct answer *a, const struct ares_addrinfo_node *node)
{
	struct endpoint ep;

	if (!endpoint_from_sockaddr(node->ai_addr, node->ai_addrlen, &ep))
		return true; /* neither IPv4 nor IPv6: not an address we could use */
	for (size_t i = 0; i < a->naddresses; i++)
		if (addr_equal(&a->addresses[i], &ep.addr))
			return true;
	if (a->naddresses == ANSWER_ADDRESSES_MAX)
		return false;
	a->addresses[a->naddresses++] = ep.addr;
	return true;
}

/* A part of an answer would be judged without the rest: too much is refused as a whole. */
static void read_answer(struct question *q, const struct ares_addrinfo *ai)
{
	struct answer *a = &q->answer;

	for (const struct ares_addrinfo_cname *c = ai->cnames; c != NULL; c = c->next)
		if ((c->alias != NULL && !add_alias(a, q, c->alias)) || (c->name != NULL && !add_alias(a, q, c->name))) {
			fail(a, REASON_ANSWER_REFUSED, "more than 16 aliases, or one that is no host name");
			return;
		}
	for (const struct ares_addrinfo_node *n = ai->nodes; n != NULL; n = n->ai_next)
		if (!add_address(a, n)) {
			fail(a, REASON_ANSWER_REFUSED, "more than 64 addresses");
			return;
		}
	if (a->naddresses == 0)
		fail(a, REASON_NO_SUCH_NAME, "it has no address");
}

/* The least of the whole chain and of all addresses, in seconds.  One with its highest bit set is none: RFC 2181 section 8. */
static int64_t least_ttl(const struct ares_addrinfo *ai)
{
	int64_t least = INT32_MAX;

	for (const struct ares_addrinfo_cname *c = ai->cnames; c != NULL; c = c->next)
		least = c->ttl < least ? c->ttl : least;
	for (const struct ares_addrinfo_node *n = ai->nodes; n != NULL; n = n->ai_next)
		least = n->ai_ttl < least ? n->ai_ttl : least;
	return least;
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *ai)
{
	struct question *q = arg;
	struct resolver *r = q->resolver;

	r->running--;
	if (r->ending) {
		if (ai != NULL)
			ares_freeaddrinfo(ai);
		return;
	}
	if (status == ARES_SUCCESS && ai != NULL)
		read_answer(q, ai);
	else if (status == ARES_ENOTFOUND || status == ARES_ENODATA)
		fail(&q->answer, REASON_NO_SUCH_NAME, NULL);
	else
		fail(&q->answer, REASON_LOOKUP_FAILED, ares_strerror(status));
	/* Where a question was not answered at first, the addresses of one family may be missing. */
	if (q->fresh && timeouts == 0 && status == ARES_SUCCESS && ai != NULL)
		name_cache_keep(r->cache, &q->name, &q->answer, least_ttl(ai), &q->asked);
	if (ai != NULL)
		ares_freeaddrinfo(ai);
	/* Not here, inside of c-ares: when the answer is delivered. */
	event_active(&q->deliver, EV_TIMEOUT, 1);
}

static void look(struct moment *now)
{
	now->mono_us = clock_mono_us();
	now->wall_us = clock_wall_us();
}

static void ask(struct question *q)
{
	struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT};

	q->resolver->running++;
	look(&q->asked);
	ares_getaddrinfo(q->resolver->channel, q->name.text, NULL, &hints, on_answer, q);
}

static bool find_in_hosts(struct question *q)
{
	struct answer *a = &q->answer;
	size_t n;

	if (q->resolver->hosts == NULL)
		return false;
	n = hosts_find(q->resolver->hosts, &q->name, a->addresses, ANSWER_ADDRESSES_MAX);
	if (n > ANSWER_ADDRESSES_MAX)
		fail(a, REASON_ANSWER_REFUSED, "more than 64 addresses in the hosts file");
	else
		a->naddresses = n;
	return n > 0;
}

static bool find_in_cache(struct question *q)
{
	struct moment now;

	look(&now);
	return name_cache_find(q->resolver->cache, &q->name, &now, &q->answer);
}

/* NULL: nobody asks for that name now. */
static struct question *find_question(const struct resolver *r, const struct name *name, size_t chain)
{
	struct question *q;

	LIST_FOREACH (q, &r->under_way[chain], same)
		if (q->name.len == name->len && memcmp(q->name.text, name->text, name->len) == 0)
			return q;
	return NULL;
}

static struct question *new_question(struct resolver *r, const struct name *name)
{
	struct question *q = calloc(1, sizeof *q);

	if (q == NULL)
		return NULL;
	q->resolver = r;
	q->name = *name;
	TAILQ_INIT(&q->lookups);
	LIST_INSERT_HEAD(&r->questions, q, next);
	event_assign(&q->deliver, r->base, -1, 0, on_deliver, q);
	return q;
}

static void start_question(struct question *q, size_t chain)
{
	struct resolver *r = q->resolver;

	bool in_hosts = find_in_hosts(q), in_cache = !in_hosts && find_in_cache(q);

	r->hits += in_cache;
	r->misses += !in_hosts && !in_cache;
	if (in_hosts || in_cache) {
		event_active(&q->deliver, EV_TIMEOUT, 1);
		return;
	}
	q->fresh = true;
	LIST_INSERT_HEAD(&r->under_way[chain], q, same);
	if (r->changing)
		STAILQ_INSERT_TAIL(&r->waiting, q, later);
	else
		ask(q);
}

struct lookup *resolver_lookup(struct resolver *r, const struct name *name, lookup_done *done, void *arg)
{
	size_t chain = name_cache_hash(r->cache, name) % CHAINS;
	struct question *q = find_question(r, name, chain);
	struct lookup *l = calloc(1, sizeof *l);
	bool is_new = q == NULL;

	if (l != NULL && q == NULL)
		q = new_question(r, name);
	if (l == NULL || q == NULL) {
		free(l);
		return NULL;
	}
	l->question = q;
	l->done = done;
	l->arg = arg;
	TAILQ_INSERT_TAIL(&q->lookups, l, next);
	r->joined += !is_new;
	if (is_new)
		start_question(q, chain);
	return l;
}

struct resolver_counts resolver_counts(const struct resolver *r)
{
	return (struct resolver_counts){.hits = r->hits,
					.joined = r->joined,
					.misses = r->misses,
					.names = name_cache_names(r->cache),
					.bytes = name_cache_bytes(r->cache)};
}

void lookup_cancel(struct lookup **lookup)
{
	struct lookup *l = *lookup;

	*lookup = NULL;
	if (l == NULL)
		return;
	TAILQ_REMOVE(&l->question->lookups, l, next);
	free(l);
}
