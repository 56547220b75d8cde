/*
 * What the operator set: defaults, then the configuration file, then the command line. Read once at start; constant afterwards.
 *
 *   # /etc/watari/watarid.conf
 *   [watarid]
 *   listen = 0.0.0.0:7788
 *   state-dir = /var/lib/watari
 *   run-dir = /run/watari
 *   control = /run/watari/control.sock
 *   host-name = h1                  ; default: the system's host name
 *   mover-user = watari             ; default: watari, else nobody
 *   [pools]
 *   fast = /srv/vms                 ; NAME = DIRECTORY; the first is the default
 *   [launch]
 *   binary = /usr/bin/qemu-system-x86_64     ; may repeat; default: qemu-system-* in /usr/bin and /usr/libexec
 *   allow-path = /srv/boot          ; kernels, firmware, ... outside pools that a launch may name; may repeat
 *   [link]
 *   patience = 5s                   ; how long a peer may be silent
 *   renew-keys = 256G               ; of a lane, after so many bytes
 *   max-bandwidth = 500mbit         ; of all migrations together, each way; default: no limit
 *   [memory]
 *   in-flight = 30ms                ; what may be on its way to the other side
 *   page-cache = auto               ; what a mover may take for pages that are sent again: auto, or a size
 */
#ifndef WATARI_DAEMON_CONFIG_H
#define WATARI_DAEMON_CONFIG_H

#include "agent/common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_DEFAULT_FILE "/etc/watari/watarid.conf"
#define CONFIG_DEFAULT_PORT 7788

struct config_pool {
    char *name;
    char *directory; /* absolute, no trailing slash */
};

struct config {
    char *listen_address; /* numeric, no brackets */
    uint16_t listen_port;
    char *state_dir;
    char *run_dir;
    char *control_path; /* default: RUN_DIR/control.sock */
    char *host_name;
    char *mover_user;
    char *mover_path; /* watari-mover: beside watarid, else in libexecdir */
    struct config_pool *pools;
    size_t pool_count;
    char **
        binaries; /* QEMU binaries a launch may use: absolute paths, or directories ending in '/' whose qemu-system-* are allowed */
    size_t binary_count;
    char **allowed_paths;
    size_t allowed_path_count;
    uint32_t in_flight_ms;  /* 1 .. ORDERS_MAX_IN_FLIGHT_MS of agent/mover/orders.h */
    uint32_t patience_ms;   /* up to ORDERS_MAX_PATIENCE_MS: a peer silent for so long is lost */
    uint64_t max_bandwidth; /* bytes/s; 0: no limit */
    uint64_t
        key_bytes; /* that a lane protects under one key: up to TLS_KEY_BYTES_MAX of tls/channel.h */
    uint64_t page_cache; /* bytes, or PAGE_BUDGET_AUTO of agent/policy/page_budget.h */
};

/* Defaults, file and command line. ARGV as main got it; "--config FILE" names the file (which must then exist).
 * False with a message that names file and line, or the option. --help and --version print and exit(0). */
bool config_load(struct config *config, int argc, char **argv, struct error *error);
void config_clear(struct config *config);
/* NULL when there is no pool of that name. */
const struct config_pool *config_pool(const struct config *config, const char *name);

#endif
