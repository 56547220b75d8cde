#include "directories.h"

#include "agent/common/must.h"
#include "agent/common/timeline_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static bool make(const char *path, struct error *error)
{
    struct stat found;

    if (mkdir(path, 0700) == 0) {
        return true;
    }
    if (errno != EEXIST) {
        return error_set(error, "state-directory", "directory %s cannot be made: %s", path,
                         strerror(errno));
    }
    if (stat(path, &found) < 0) {
        return error_set(error, "state-directory", "directory %s: %s", path, strerror(errno));
    }
    if (!S_ISDIR(found.st_mode)) {
        return error_set(error, "state-directory", "%s is not a directory", path);
    }
    if (found.st_uid != geteuid() || (found.st_mode & 077)) {
        return error_set(error, "state-directory",
                         "directory %s must be closed to others: it belongs to user %u and has "
                         "mode %04o; give it to watarid's user with mode 0700, or set another one",
                         path, (unsigned)found.st_uid, (unsigned)(found.st_mode & 07777));
    }
    return true;
}

static bool make_below(const char *parent, const char *name, struct error *error)
{
    char *path = must_format("%s/%s", parent, name);
    bool good = make(path, error);

    free(path);
    return good;
}

/* -1 with an error. */
static int lock(const char *state_dir, struct error *error)
{
    char *path = must_format("%s/lock", state_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0) {
        error_set(error, "state-directory", "%s: %s", path, strerror(errno));
    } else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK) {
            error_set(error, "state-directory",
                      "another watarid uses this state directory: %s is locked", path);
        } else {
            error_set(error, "state-directory", "%s cannot be locked: %s", path, strerror(errno));
        }
        close(fd);
        fd = -1;
    }
    free(path);
    return fd;
}

bool directories_prepare(const struct config *config, int *lock_fd, struct error *error)
{
    *lock_fd = -1;
    if (!make(config->state_dir, error)) {
        return false;
    }
    *lock_fd = lock(config->state_dir, error);
    if (*lock_fd < 0) {
        return false;
    }
    return make_below(config->state_dir, "identity", error) &&
           make_below(config->state_dir, "journal", error) &&
           make_below(config->state_dir, TIMELINE_DIRECTORY, error) &&
           make_below(config->state_dir, "vms", error) && make(config->run_dir, error) &&
           make_below(config->run_dir, "migrations", error) &&
           make_below(config->run_dir, "vms", error);
}
