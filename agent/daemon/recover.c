#include "recover.h"

#include "clock.h"
#include "daemon.h"
#include "destination.h"
#include "migration.h"
#include "source.h"

#include "agent/common/journal_file.h"
#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RECOVER_LIMIT_MS 30000

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length > end_length && strcmp(text + length - end_length, end) == 0;
}

static void recover_one(struct daemon *daemon, const char *path, bool source)
{
    struct journal_content content;
    struct error error;
    bool good;

    if (!journal_file_read(path, &content, &error)) {
        log_error("%s", error.text);
        return;
    }
    good = source ? source_recover(daemon, path, &content, &error)
                  : destination_recover(daemon, path, &content, &error);
    if (!good) {
        log_error("%s: %s", path, error.text);
    }
    journal_content_clear(&content);
}

/* Sources first: a guest that stands still here waits for nothing else. */
static bool recover_side(struct daemon *daemon, const char *directory, const char *suffix,
                         struct error *error)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;

    if (!entries) {
        return error_set(error, "journal-unreadable", "journal directory %s: %s", directory,
                         strerror(errno));
    }
    while ((entry = readdir(entries))) {
        if (ends_with(entry->d_name, suffix)) {
            char *path = must_format("%s/%s", directory, entry->d_name);

            recover_one(daemon, path, strcmp(suffix, ".source") == 0);
            free(path);
        }
    }
    closedir(entries);
    return true;
}

static bool rolling_back(const struct daemon *daemon)
{
    const struct migration *migration;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (!migration->result && strcmp(migration->phase, PHASE_ROLLBACK) == 0) {
            return true;
        }
    }
    return false;
}

static void on_limit(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
}

bool recover_run(struct daemon *daemon, struct error *error)
{
    char *directory = must_format("%s/journal", daemon->config.state_dir);
    uint64_t end = clock_boottime_ms() + RECOVER_LIMIT_MS;
    /* Only wakes the loop up, so that the limit is looked at. */
    struct event *limit = event_new(daemon->base, -1, EV_PERSIST, on_limit, NULL);
    bool good = recover_side(daemon, directory, ".source", error) &&
                recover_side(daemon, directory, ".destination", error);

    free(directory);
    event_add(limit, &(struct timeval){1, 0});
    while (good && rolling_back(daemon) && clock_boottime_ms() < end) {
        event_base_loop(daemon->base, EVLOOP_ONCE);
    }
    event_free(limit);
    return good;
}
