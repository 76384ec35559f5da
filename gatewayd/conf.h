/* gatewayd.conf: an immutable snapshot, read by libconfuse, the same in every process of one run. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/limits.h"
#include "common/addr.h"
#include "common/err.h"
#include "common/log.h"

/* A peer that has been silent for so long is asked whether it is still there, and given up after so many questions. */
#define KEEPALIVE_IDLE_S 120
#define KEEPALIVE_INTERVAL_S 30
#define KEEPALIVE_PROBES 4

#define CONFIG_FILE_MAX (1024 * 1024)
#define CONFIG_LISTENERS_MAX 64
#define CONFIG_ADDRESSES_MAX 16
#define CONFIG_RESOLVERS_MAX 8
#define CONFIG_WORKERS_MAX 64

enum config_methods { CONFIG_METHOD_NONE = 1, CONFIG_METHOD_PASSWORD = 2 };

struct config_listener {
	char name[64];
	struct endpoint addresses[CONFIG_ADDRESSES_MAX];
	size_t naddresses;
	uint8_t methods[3]; /* SOCKS5 codes in the server's order of preference */
	size_t nmethods;
	bool socks4, socks5;  /* versions served; SOCKS4 only together with the method none */
	unsigned commands;    /* bits 1 << SOCKS command (RFC 1928 section 4): 1 connect, 2 bind, 3 udp */
	char pam_service[64];
	unsigned gssapi_protection; /* the least that is agreed on: 0 none, 1 integrity, 2 confidentiality */
	bool gssapi_nec;	    /* the word about protection may be plain, as the NEC reference client sends it */
	struct prefix *clients; /* who may connect at all; none: everybody */
	size_t nclients;
	bool open_proxy;
	bool udp_replies_any; /* others than contacted destinations may speak to an association, as policy allows */
	struct limit_set limits; /* over all workers; those of all listeners together are the configuration's */
	unsigned handshake_timeout_ms, idle_timeout_ms, max_session_age_ms; /* its own, or those of all */
};

struct config {
	char file[4096];
	struct config_listener listeners[CONFIG_LISTENERS_MAX];
	size_t nlisteners;
	unsigned workers;
	bool cpu_local; /* a worker has CPUs of its own, and the connections whose packets come there */
	unsigned max_sessions; /* of one worker; 0: what the descriptor limit allows */
	struct limit_set limits; /* of clients and users, over all workers and listeners */
	char user[64];         /* to become when started as root */
	char pam_user[64];     /* of the conversation children when started as root */
	char state_dir[4096];
	char control_socket[104];
	char control_group[64]; /* of administrators */
	char viewer_group[64], auditor_group[64], operator_group[64];
	char policy_file[4096];
	char geoip_database[4096], asn_database[4096];
	bool policy_approval; /* a change of the policy takes effect when a second administrator approves */
	unsigned policy_approval_within_ms; /* else it expires */
	unsigned database_check_ms; /* between looks at them; 0: none */
	struct endpoint resolvers[CONFIG_RESOLVERS_MAX]; /* none: the system's */
	size_t nresolvers;
	unsigned resolver_timeout_ms, resolver_tries;
	unsigned resolver_cache;	    /* names that a worker remembers; 0: none */
	unsigned resolver_cache_longest_ms; /* of any of them */
	char search_domain[256];
	char pam_config_dir[4096];
	char pam_groups_file[4096];
	char gssapi_keytab[4096]; /* "": no GSSAPI */
	char gssapi_krb5_conf[4096];
	unsigned gssapi_contexts; /* unfinished ones */
	unsigned gssapi_timeout_ms; /* of a step, and of a new process' start at a reload */
	unsigned pam_processes_min, pam_idle_timeout_ms; /* at least, and how long more of them wait in vain */
	unsigned pam_processes, pam_queue, pam_timeout_ms;
	unsigned remember_logins_ms; /* 0: off */
	unsigned throttle_user_failures, throttle_client_failures; /* free of charge; 0: no throttle */
	unsigned throttle_first_wait_ms, throttle_longest_wait_ms;
	unsigned throttle_prefix_v4, throttle_prefix_v6; /* what counts as one client */
	bool fold_user_case;
	unsigned handshake_timeout_ms, idle_timeout_ms, connect_timeout_ms, bind_timeout_ms;
	unsigned max_session_age_ms; /* 0: none */
	unsigned udp_idle_timeout_ms; /* of one destination */
	bool udp_offload; /* datagrams pass through the kernel joined, where it can do that */
	unsigned audit_timeout_ms, commit_interval_us;
	bool audit_relaxed; /* grants do not wait for the disk */
	bool audit_allow;   /* grants go on without an audit */
	bool audit_looks;   /* commands that change nothing are recorded, too */
	bool live_keep;     /* sessions that live are not decided again */
	unsigned reserve_mb; /* of the disk, for ends and refusals when it is full; 0: none */
	unsigned fold_after; /* rows a second of one and the same denial; 0: all */
	unsigned anchor_interval_s; /* 0: none */
	char anchor_file[4096];     /* besides the log; "": none */
	unsigned policy_store_warn_mb; /* status warns of a larger one; 0: of none */
	unsigned segment_mb; /* a file of the audit ends at this size */
	unsigned checkpoint_interval_ms; /* of a session that goes on */
	unsigned checkpoint_mb;          /* or after that many MiB */
	unsigned compile_timeout_ms;
	unsigned worker_timeout_ms, process_timeout_ms, recorder_timeout_ms; /* of those that hang */
	bool sandbox;
	enum log_level log_level;
};

/* The files that the daemon opens because its configuration names them. */
enum config_file { CONFIG_FILE_POLICY, CONFIG_FILE_GEOIP, CONFIG_FILE_ASN, CONFIG_FILES };
/* The option that names it, and its path ("" if there is none). */
const char *config_file_option(enum config_file file);
const char *config_file_path(const struct config *config, enum config_file file);

/* Reads text (of the file named for messages).  All wrong values are reported, each as one line "file:line: ...", joined by
 * newlines, in a malloc'd text in *errors (NULL if none).  Returns a new snapshot, or NULL. */
struct config *config_parse(const char *file, const char *text, char **errors);
void config_free(struct config **config);
/* True if a listener offers GSSAPI. */
bool config_has_gssapi(const struct config *config);
