/*
 * watari may-start VM|PATH: answers from the journals alone, without the daemon, and fails closed: for ExecStartPre= and hooks.
 */
#include "arguments.h"
#include "command.h"
#include "terminal.h"

#include "agent/common/journal_file.h"
#include "agent/common/must.h"
#include "agent/policy/may_start.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_STATE_DIR "/var/lib/watari"
#define REASON_SIZE 256

struct journals {
    struct journal_content *contents;
    struct may_start_journal *list;
    size_t count;
};

static void clear(struct journals *journals)
{
    for (size_t i = 0; i < journals->count; i++) {
        journal_content_clear(&journals->contents[i]);
    }
    free(journals->contents);
    free(journals->list);
}

static bool read_one(struct journals *journals, const char *path, struct error *error)
{
    size_t wanted = journals->count + 1;
    struct stat status;

    journals->contents = realloc(journals->contents, wanted * sizeof *journals->contents);
    journals->list = realloc(journals->list, wanted * sizeof *journals->list);
    if (!journals->contents || !journals->list) {
        return error_set(error, "memory", "out of memory");
    }
    if (stat(path, &status) < 0) {
        return error_set(error, "journal-unreadable", "%s: %s", path, strerror(errno));
    }
    if (!journal_file_read(path, &journals->contents[journals->count], error)) {
        return false;
    }
    journals->list[journals->count].records = journals->contents[journals->count].records;
    journals->list[journals->count].written = (int64_t)status.st_mtime;
    journals->count++;
    return true;
}

/* A host where watarid never ran has no journals: nothing speaks against starting. Anything else that cannot be read does. */
static bool read_all(struct journals *journals, const char *state_dir, struct error *error)
{
    char *directory = must_format("%s/journal", state_dir);
    DIR *entries = opendir(directory);
    struct dirent *entry;
    bool good = true;

    if (!entries) {
        good = errno == ENOENT ||
               error_set(error, "journal-unreadable", "%s: %s", directory, strerror(errno));
        free(directory);
        return good;
    }
    while (good && (entry = readdir(entries))) {
        if (strstr(entry->d_name, ".source") || strstr(entry->d_name, ".destination")) {
            char *path = must_format("%s/%s", directory, entry->d_name);

            good = read_one(journals, path, error);
            free(path);
        }
    }
    closedir(entries);
    free(directory);
    return good;
}

static int answer(const struct client *client, const char *what, bool may, const char *reason)
{
    if (client->json) {
        terminal_json_new(
            must_json(json_pack("{sb,ss,ss}", "may_start", may, "what", what, "reason", reason)));
    } else {
        terminal_line(may ? stdout : stderr, "%s %s be started here: %s", what,
                      may ? "may" : "must not", reason);
    }
    return may ? CLIENT_DONE : CLIENT_FAILED;
}

int command_may_start(const struct client *client, const struct command *self, int argc,
                      char **argv)
{
    static const struct option options[] = {{"state-dir", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *state_dir = DEFAULT_STATE_DIR;
    struct journals journals = {0};
    struct error error;
    char reason[REASON_SIZE];
    int option, code;

    optind = 0;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            return command_help(self);
        }
        if (option != 's') {
            error_set(&error, "invalid-argument", "unknown option, or one without its value");
            return command_usage_error(self, &error);
        }
        state_dir = optarg;
    }
    if (argc - optind != 1) {
        error_set(&error, "invalid-argument", "one VM name or disk path is wanted");
        return command_usage_error(self, &error);
    }
    if (!read_all(&journals, state_dir, &error)) {
        code = answer(client, argv[optind], false, error.text);
    } else {
        bool may = may_start(argv[optind], journals.list, journals.count, reason, sizeof reason);

        code = answer(client, argv[optind], may, reason);
    }
    clear(&journals);
    return code;
}
