/*
 * watarid: starts the parts in their order, runs the loop, ends them in reverse. The order matters: guests that a dead daemon left paused
 * are recovered before anybody can connect, and before anything is read that may be broken or slow (keys, trust, resolv.conf, pools): that must never
 * keep a guest waiting.
 */
#include "clock.h"
#include "control.h"
#include "daemon.h"
#include "directories.h"
#include "farewell.h"
#include "guardian.h"
#include "journal.h"
#include "listener.h"
#include "notify.h"
#include "peer.h"
#include "plan.h"
#include "recover.h"
#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"
#include "tls/identity.h"
#include "tls/trust.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A wrong command line or file: a restart would not better it (watarid.service). */
#define EXIT_CONFIG 2
/* How long a stopping daemon waits for rollbacks: systemd gives 90 s. */
#define ROLLBACK_MS 20000
#define SIGNAL_COUNT 3

/* The signals that end the daemon in order. They are taken from the start: a recovery is not cut short by them. */
struct ending {
    struct daemon *daemon;
    struct event *events[SIGNAL_COUNT];
    bool told;
};

/* Lanes, guests' sockets and strangers all take descriptors. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        log_warning("the limit of open files cannot be read: %s", strerror(errno));
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        log_warning("the limit of open files cannot be raised: %s", strerror(errno));
    }
}

/* What is no reason to refuse to start, but will make migrations fail. */
static void warn_of_gaps(const struct config *config)
{
    struct stat found;

    for (size_t i = 0; i < config->pool_count; i++) {
        const struct config_pool *pool = &config->pools[i];

        if (stat(pool->directory, &found) < 0) {
            log_warning("pool %s: %s: %s; VMs cannot come into it until that is mended", pool->name,
                        pool->directory, strerror(errno));
        } else if (!S_ISDIR(found.st_mode)) {
            log_warning("pool %s: %s is not a directory; VMs cannot come into it", pool->name,
                        pool->directory);
        }
    }
    if (config->pool_count == 0) {
        log_warning("no pool is set: VMs can leave this host, but none can come ([pools] in the "
                    "configuration file, or --pool)");
    }
    if (access(config->mover_path, X_OK) < 0) {
        log_warning("%s: %s; no migration can run", config->mover_path, strerror(errno));
    }
}

static bool make_resolver(struct daemon *daemon, struct error *error)
{
    daemon->dns = evdns_base_new(daemon->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (!daemon->dns) {
        return error_set(error, "start", "the resolver cannot be made");
    }
    if (evdns_base_resolv_conf_parse(daemon->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf") != 0) {
        log_warning("/etc/resolv.conf names no name server: peers are found by numeric address "
                    "and /etc/hosts only");
    }
    return true;
}

static bool load_keys(struct daemon *daemon, struct error *error)
{
    char *identity = must_format("%s/identity", daemon->config.state_dir);
    char *trust = must_format("%s/trust.json", daemon->config.state_dir);
    char text[ERROR_TEXT_SIZE] = "";
    bool good = true;

    if (tls_identity_load_or_create(identity, &daemon->identity, text, sizeof text) < 0) {
        good = error_set(error, "identity", "%s", text);
    } else if (tls_trust_load(trust, &daemon->trust, text, sizeof text) < 0) {
        good = error_set(error, "trust", "%s", text);
    }
    free(identity);
    free(trust);
    return good;
}

static void on_signal(evutil_socket_t signal_number, short what, void *context)
{
    struct ending *ending = context;

    (void)what;
    log_info("watarid ends: %s", strsignal((int)signal_number));
    ending->told = true;
    event_base_loopexit(ending->daemon->base, NULL);
}

/* Under nohup SIGHUP is ignored, and stays so. */
static bool is_ignored(int signal_number)
{
    struct sigaction now;

    return sigaction(signal_number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

static bool take_signals(struct ending *ending, struct error *error)
{
    static const int signals[SIGNAL_COUNT] = {SIGTERM, SIGINT, SIGHUP};

    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        if (signals[i] == SIGHUP && is_ignored(SIGHUP)) {
            continue;
        }
        ending->events[i] = evsignal_new(ending->daemon->base, signals[i], on_signal, ending);
        if (!ending->events[i] || event_add(ending->events[i], NULL) < 0) {
            return error_set(error, "start", "signals cannot be taken");
        }
    }
    return true;
}

static void leave_signals(struct ending *ending)
{
    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        if (ending->events[i]) {
            event_free(ending->events[i]);
        }
    }
}

static bool start(struct daemon *daemon, struct ending *ending, struct error *error)
{
    daemon->base = event_base_new();
    if (!daemon->base) {
        return error_set(error, "start", "the event loop cannot be made");
    }
    daemon->syncer = journal_syncer_new(daemon->base, error);
    if (!daemon->syncer || !take_signals(ending, error)) {
        return false;
    }
    daemon->peers = peer_list_new(daemon);
    recover_run(daemon);
    warn_of_gaps(&daemon->config);
    if (!load_keys(daemon, error) || !make_resolver(daemon, error)) {
        return false;
    }
    daemon->listener = listener_new(daemon, error);
    if (!daemon->listener) {
        return false;
    }
    daemon->control = control_new(daemon, error);
    return daemon->control != NULL;
}

static void stop(struct daemon *daemon)
{
    control_free(daemon->control);
    farewell_free_all(daemon);
    migration_free_all(daemon);
    plan_forget_all(daemon);
    recover_free(daemon);
    if (daemon->listener) {
        listener_free(daemon->listener);
    }
    if (daemon->peers) {
        peer_list_free(daemon->peers);
    }
    if (daemon->syncer) {
        journal_syncer_free(daemon->syncer);
    }
    tls_trust_free(daemon->trust);
    tls_identity_free(daemon->identity);
    if (daemon->dns) {
        evdns_base_free(daemon->dns, 0);
    }
    if (daemon->base) {
        event_base_free(daemon->base);
    }
}

static void log_start(const struct daemon *daemon)
{
    char pools[1024] = "none";
    size_t used = 0;

    for (size_t i = 0; i < daemon->config.pool_count && used < sizeof pools; i++) {
        const struct config_pool *pool = &daemon->config.pools[i];
        int length = snprintf(pools + used, sizeof pools - used, "%s%s=%s", i ? " " : "",
                              pool->name, pool->directory);

        used += length > 0 ? (size_t)length : 0;
    }
    log_info("watarid %s on %s: listening on %s port %u, key %s, pools: %s", WATARI_VERSION,
             daemon->host, daemon->config.listen_address, (unsigned)daemon->config.listen_port,
             tls_identity_fingerprint(daemon->identity), pools);
}

/* What has not been handed over yet is put back before we go: a paused guest must not wait for the next start. */
static bool cancel_all(struct daemon *daemon)
{
    struct migration *migration;
    bool waits = false;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        struct error error;

        if (migration->result) {
            continue;
        }
        if (migration->ops->cancel(migration, &error)) {
            waits = true;
        } else {
            log_warning(
                "migration %s of VM %s (%s %s, phase %s) is left as its journal has it: the next start of watarid "
                "goes on with it",
                migration->id, migration->vm, migration->side == MIGRATION_SOURCE ? "to" : "from",
                migration->peer, migration->phase);
        }
    }
    return waits;
}

static bool all_ended(const struct daemon *daemon)
{
    const struct migration *migration;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (!migration->result && strcmp(migration->phase, PHASE_ROLLBACK) == 0) {
            return false;
        }
    }
    return true;
}

static void on_wait_over(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
}

/* The loop has been left; rollbacks need it a little longer. */
static void roll_back_before_end(struct daemon *daemon)
{
    struct event *tick = event_new(daemon->base, -1, EV_PERSIST, on_wait_over, NULL);
    uint64_t end = clock_boottime_ms() + ROLLBACK_MS;

    if (tick && cancel_all(daemon)) {
        event_add(tick, &(struct timeval){0, 100000});
        while (!all_ended(daemon) && clock_boottime_ms() < end) {
            event_base_loop(daemon->base, EVLOOP_ONCE);
        }
        /* What came of it reaches who waits for it: the client, the other side. */
        event_base_loop(daemon->base, EVLOOP_NONBLOCK);
    }
    if (tick) {
        event_free(tick);
    }
}

/* False when the loop broke. */
static bool run(struct daemon *daemon, const struct ending *ending)
{
    bool good = true;

    log_start(daemon);
    notify_systemd("READY=1");
    if (!ending->told) {
        good = event_base_dispatch(daemon->base) >= 0;
    }
    if (!good) {
        log_error("the event loop broke: %s", strerror(errno));
    }
    notify_systemd("STOPPING=1");
    roll_back_before_end(daemon);
    return good;
}

/* With the configuration read: an exit code. */
static int run_daemon(struct daemon *daemon)
{
    struct ending ending = {.daemon = daemon};
    struct error error = {0};
    bool good = false;
    int lock_fd;

    if (!directories_prepare(&daemon->config, &lock_fd, &error)) {
        log_error("%s", error.text);
    } else {
        if (start(daemon, &ending, &error)) {
            good = run(daemon, &ending);
        } else {
            log_error("%s", error.text);
        }
        leave_signals(&ending);
        stop(daemon);
    }
    if (lock_fd >= 0) {
        close(lock_fd);
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct daemon daemon = {0};
    struct error error = {0};
    int code;

    if (guardian_is_needed() && !guardian_start(&code)) {
        return code;
    }
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    TAILQ_INIT(&daemon.migrations);
    LIST_INIT(&daemon.farewells);
    if (!config_load(&daemon.config, argc, argv, &error)) {
        log_error("%s", error.text);
        return EXIT_CONFIG;
    }
    raise_descriptor_limit();
    snprintf(daemon.host, sizeof daemon.host, "%s", daemon.config.host_name);
    daemon.max_bandwidth = daemon.config.max_bandwidth;
    code = run_daemon(&daemon);
    config_clear(&daemon.config);
    return code;
}
