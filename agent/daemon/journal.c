#include "journal.h"

#include "clock.h"

#include "agent/common/journal_file.h"
#include "agent/common/must.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

/* The journal's own, and those of the disks: images of one VM lie in few directories. */
#define DIRECTORIES_MAX 64

/* One fdatasync asked for. It has descriptors of its own, so that the journal may be freed meanwhile. */
struct job {
    int fd;
    int directories[DIRECTORIES_MAX];
    size_t directory_count;
    int result; /* 0 or errno */
    uint64_t nanoseconds;
    struct journal *journal; /* NULL: nobody waits any more. Loop thread only. */
    STAILQ_ENTRY(job) link;
};
STAILQ_HEAD(job_list, job);

struct journal_syncer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job_list waiting, done; /* under the lock */
    bool stop;                     /* under the lock */
    int notify;                    /* eventfd: something is in DONE */
    struct event *notified;
};

struct journal {
    struct journal_syncer *syncer;
    char *path;
    int fd;
    size_t records;
    struct job *next; /* gathers what the next sync takes along */
    struct job *job;  /* under way */
    journal_synced_callback callback;
    void *context;
};

static void job_free(struct job *job)
{
    close(job->fd);
    for (size_t i = 0; i < job->directory_count; i++) {
        close(job->directories[i]);
    }
    free(job);
}

static void job_run(struct job *job)
{
    uint64_t start = clock_monotonic_ns();

    if (job->result) {
        return;
    }
    for (size_t i = 0; i < job->directory_count; i++) {
        if (fsync(job->directories[i]) < 0) {
            job->result = errno;
        }
    }
    if (fdatasync(job->fd) < 0) {
        job->result = errno;
    }
    job->nanoseconds = clock_monotonic_ns() - start;
}

static void *syncer_thread(void *context)
{
    struct journal_syncer *syncer = context;
    uint64_t one = 1;

    pthread_mutex_lock(&syncer->lock);
    while (true) {
        struct job *job = STAILQ_FIRST(&syncer->waiting);

        if (!job) {
            if (syncer->stop) {
                break;
            }
            pthread_cond_wait(&syncer->wake, &syncer->lock);
            continue;
        }
        STAILQ_REMOVE_HEAD(&syncer->waiting, link);
        pthread_mutex_unlock(&syncer->lock);
        job_run(job);
        pthread_mutex_lock(&syncer->lock);
        STAILQ_INSERT_TAIL(&syncer->done, job, link);
        (void)!write(syncer->notify, &one, sizeof one);
    }
    pthread_mutex_unlock(&syncer->lock);
    return NULL;
}

static void job_tell(struct job *job)
{
    struct journal *journal = job->journal;
    struct error error;

    if (!journal) {
        return;
    }
    journal->job = NULL;
    if (job->result == 0) {
        journal->callback(NULL, job->nanoseconds, journal->context);
        return;
    }
    error_set(&error, "journal-unwritable", "journal %s could not be brought to disk: %s",
              journal->path, strerror(job->result));
    journal->callback(&error, job->nanoseconds, journal->context);
}

static void on_notified(evutil_socket_t fd, short what, void *context)
{
    struct journal_syncer *syncer = context;
    uint64_t count;

    (void)what;
    (void)!read((int)fd, &count, sizeof count);
    while (true) {
        struct job *job;

        pthread_mutex_lock(&syncer->lock);
        job = STAILQ_FIRST(&syncer->done);
        if (job) {
            STAILQ_REMOVE_HEAD(&syncer->done, link);
        }
        pthread_mutex_unlock(&syncer->lock);
        if (!job) {
            return;
        }
        job_tell(job);
        job_free(job);
    }
}

struct journal_syncer *journal_syncer_new(struct event_base *base, struct error *error)
{
    struct journal_syncer *syncer = must_alloc(sizeof *syncer);
    int reason;

    pthread_mutex_init(&syncer->lock, NULL);
    pthread_cond_init(&syncer->wake, NULL);
    STAILQ_INIT(&syncer->waiting);
    STAILQ_INIT(&syncer->done);
    syncer->notify = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (syncer->notify < 0) {
        reason = errno;
        goto fail;
    }
    syncer->notified = event_new(base, syncer->notify, EV_READ | EV_PERSIST, on_notified, syncer);
    event_add(syncer->notified, NULL);
    reason = pthread_create(&syncer->thread, NULL, syncer_thread, syncer);
    if (reason) {
        event_free(syncer->notified);
        close(syncer->notify);
        goto fail;
    }
    return syncer;

fail:
    error_set(error, "journal-unwritable", "the journal's thread cannot be started: %s",
              strerror(reason));
    free(syncer);
    return NULL;
}

void journal_syncer_free(struct journal_syncer *syncer)
{
    struct job *job;

    if (!syncer) {
        return;
    }
    pthread_mutex_lock(&syncer->lock);
    syncer->stop = true;
    pthread_cond_signal(&syncer->wake);
    pthread_mutex_unlock(&syncer->lock);
    pthread_join(syncer->thread, NULL);
    while ((job = STAILQ_FIRST(&syncer->done))) {
        STAILQ_REMOVE_HEAD(&syncer->done, link);
        job_free(job);
    }
    event_free(syncer->notified);
    close(syncer->notify);
    pthread_mutex_destroy(&syncer->lock);
    pthread_cond_destroy(&syncer->wake);
    free(syncer);
}

static struct journal *open_journal(struct journal_syncer *syncer, const char *path, int flags,
                                    struct error *error)
{
    struct journal *journal;
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0600);

    if (fd < 0) {
        error_set(error, "journal-unwritable", "journal %s cannot be opened for writing: %s", path,
                  strerror(errno));
        return NULL;
    }
    journal = must_alloc(sizeof *journal);
    journal->syncer = syncer;
    journal->path = must_copy(path);
    journal->fd = fd;
    return journal;
}

static struct job *next_job(struct journal *journal)
{
    if (!journal->next) {
        journal->next = must_alloc(sizeof *journal->next);
        journal->next->fd = fcntl(journal->fd, F_DUPFD_CLOEXEC, 3);
    }
    return journal->next;
}

void journal_also_sync(struct journal *journal, const char *directory)
{
    struct job *job = next_job(journal);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || job->directory_count == DIRECTORIES_MAX) {
        job->result = fd < 0 ? errno : ENOBUFS;
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    job->directories[job->directory_count++] = fd;
}

struct journal *journal_create(struct journal_syncer *syncer, const char *path, struct error *error)
{
    struct journal *journal = open_journal(syncer, path, O_CREAT | O_EXCL, error);

    if (journal) {
        char *copy = must_copy(path);

        journal_also_sync(journal, dirname(copy));
        free(copy);
    }
    return journal;
}

struct journal *journal_reopen(struct journal_syncer *syncer, const char *path, size_t good_length,
                               size_t records, struct error *error)
{
    struct journal *journal = open_journal(syncer, path, 0, error);

    if (!journal) {
        return NULL;
    }
    if (ftruncate(journal->fd, (off_t)good_length) < 0) {
        error_set(error, "journal-unwritable", "journal %s: its torn end cannot be cut off: %s",
                  path, strerror(errno));
        journal_free(journal);
        return NULL;
    }
    journal->records = records;
    return journal;
}

void journal_free(struct journal *journal)
{
    if (!journal) {
        return;
    }
    if (journal->job) {
        journal->job->journal = NULL;
    }
    if (journal->next) {
        job_free(journal->next);
    }
    close(journal->fd);
    free(journal->path);
    free(journal);
}

bool journal_append(struct journal *journal, const char *record, json_t *members,
                    struct error *error)
{
    json_t *object = must_json(json_pack("{ss}", "record", record));
    char *line;
    size_t length;
    ssize_t written;

    if (members) {
        json_object_update(object, members);
        json_decref(members);
    }
    line = journal_file_line(journal->records, object);
    json_decref(object);
    length = strlen(line);
    written = write(journal->fd, line, length);
    free(line);
    if (written != (ssize_t)length) {
        int reason = written < 0 ? errno : ENOSPC;
        struct stat status;

        /* Take a half-written line back, so that a later record does not make it look like damage. */
        if (written > 0 && fstat(journal->fd, &status) == 0) {
            (void)!ftruncate(journal->fd, status.st_size - written);
        }
        return error_set(error, "journal-unwritable", "journal %s cannot be written: %s",
                         journal->path, strerror(reason));
    }
    journal->records++;
    return true;
}

void journal_sync(struct journal *journal, journal_synced_callback callback, void *context)
{
    struct job *job = next_job(journal);

    journal->next = NULL;
    journal->callback = callback;
    journal->context = context;
    journal->job = job;
    job->journal = journal;
    pthread_mutex_lock(&journal->syncer->lock);
    STAILQ_INSERT_TAIL(&journal->syncer->waiting, job, link);
    pthread_cond_signal(&journal->syncer->wake);
    pthread_mutex_unlock(&journal->syncer->lock);
}

const char *journal_path(const struct journal *journal)
{
    return journal->path;
}
