#include "journal.h"

#include "clock.h"

#include "agent/common/journal_file.h"
#include "agent/common/log.h"
#include "agent/common/must.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

/* The journal's own directory, those of the disks (images of one VM lie in few), the launch file. */
#define OTHERS_MAX 64
/* What is reserved at once behind the records, and how much of it a change that is only about to be made leaves: more than all records of a handoff need. */
#define RESERVE_BYTES ((size_t)256 << 10)
#define RESERVE_LEAST_BYTES ((size_t)128 << 10)
#define UNSYNCED_ROOM 4096 /* to begin with */

/* The file: of its journal and of the syncs under way, which may outlive it. */
struct file {
    int fd;              /* -1: not open */
    int unwritable;      /* errno, 0: it can be written */
    unsigned references; /* loop thread only */
    /* Syncer thread only, what a failed sync leaves to the next: records to be written anew, others to be synced. */
    bool doubtful;
    int *others;
    size_t other_count;
};

/* One sync that was asked for. */
struct job {
    struct file *file;
    int others[OTHERS_MAX];
    size_t other_count;
    char *text; /* all records that are not known to be down */
    size_t offset, length;
    int result; /* 0 or errno */
    uint64_t nanoseconds;
    /* Loop thread only: */
    struct journal *journal; /* NULL: nobody waits any more */
    journal_synced_callback callback;
    void *context;
    LIST_ENTRY(job) outstanding; /* of its journal */
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
    struct file *file;
    size_t records, length;
    bool torn;       /* a piece of a record stands behind LENGTH */
    bool reserves;   /* the file system can */
    size_t reserved; /* up to this length */
    bool ended;      /* it has its last word, or all but the acknowledgement */
    char *unsynced;  /* the records from UNSYNCED_FROM on: those not known to be down */
    size_t unsynced_from, unsynced_room;
    struct job *next; /* gathers what the next sync takes along */
    LIST_HEAD(, job) outstanding;
};

/* --- the thread --- */

static void file_release(struct file *file)
{
    if (--file->references > 0) {
        return;
    }
    if (file->fd >= 0) {
        close(file->fd);
    }
    for (size_t i = 0; i < file->other_count; i++) {
        close(file->others[i]);
    }
    free(file->others);
    free(file);
}

static void job_free(struct job *job)
{
    file_release(job->file);
    for (size_t i = 0; i < job->other_count; i++) {
        close(job->others[i]);
    }
    free(job->text);
    free(job);
}

static void take_others(struct file *file, struct job *job)
{
    file->others = must_resize(file->others,
                               (file->other_count + job->other_count + 1) * sizeof *file->others);
    while (job->other_count > 0) {
        file->others[file->other_count++] = job->others[--job->other_count];
    }
}

/* 0 or errno: those that could not be synced stay for the next time. */
static int sync_others(struct file *file)
{
    while (file->other_count > 0) {
        int fd = file->others[file->other_count - 1];

        if (fsync(fd) < 0) {
            return errno;
        }
        close(fd);
        file->other_count--;
    }
    return 0;
}

/*
 * 0 or errno. When fdatasync() fails the kernel takes the pages for written all the same, and the next one says "success" without writing
 * anything: so the records are written anew before that is believed again.
 */
static int sync_records(struct file *file, const struct job *job)
{
    int result =
        file->doubtful ? journal_file_write(file->fd, job->text, job->length, job->offset) : 0;

    if (result == 0 && fdatasync(file->fd) < 0) {
        result = errno;
    }
    file->doubtful = result != 0;
    return result;
}

static void job_run(struct job *job)
{
    uint64_t start = clock_monotonic_ns();

    take_others(job->file, job);
    if (job->result) {
        return; /* a directory was not there, or the file is not */
    }
    job->result = sync_others(job->file);
    if (job->result == 0) {
        job->result = sync_records(job->file, job);
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

static void forget_synced(struct journal *journal, size_t until)
{
    if (until <= journal->unsynced_from) {
        return;
    }
    memmove(journal->unsynced, journal->unsynced + (until - journal->unsynced_from),
            journal->length - until);
    journal->unsynced_from = until;
}

static void job_tell(struct job *job)
{
    struct error error;

    if (!job->journal) {
        return;
    }
    LIST_REMOVE(job, outstanding);
    if (job->result == 0) {
        forget_synced(job->journal, job->offset + job->length);
        job->callback(NULL, job->nanoseconds, job->context);
        return;
    }
    error_set(&error, "journal-unwritable", "journal %s could not be brought to disk: %s",
              job->journal->path, strerror(job->result));
    job->callback(&error, job->nanoseconds, job->context);
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

/* --- reserving --- */

/* Makes room for LENGTH more bytes and, behind them, for what must never want for it. 0 or errno. */
static int reserve(struct journal *journal, size_t length)
{
    int result;

    if (!journal->reserves || journal->file->unwritable ||
        journal->length + length + RESERVE_LEAST_BYTES <= journal->reserved) {
        return 0;
    }
    do {
        result = fallocate(journal->file->fd, FALLOC_FL_KEEP_SIZE, (off_t)journal->length,
                           (off_t)(length + RESERVE_BYTES));
    } while (result < 0 && errno == EINTR);
    if (result == 0) {
        journal->reserved = journal->length + length + RESERVE_BYTES;
        return 0;
    }
    journal->reserves = errno != EOPNOTSUPP && errno != ENOSYS;
    return journal->reserves ? errno : 0;
}

static bool no_room(const struct journal *journal, int reason, struct error *error)
{
    return error_set(
        error, "journal-unwritable",
        "no room can be reserved for journal %s: %s. Nothing is begun that could not be "
        "brought to its end: make room there (%zu KiB are wanted), and ask again",
        journal->path, strerror(reason), RESERVE_BYTES >> 10);
}

/* What is only about to be made need not be; everything else ends something, and is what the room was reserved for. */
static const char *const beginnings[] = {"begin", "undo", NULL};
static const char *const ends[] = {"done", "rolled-back", "acknowledged", "abandoned", NULL};

static bool is_one_of(const char *const *records, const char *record)
{
    while (*records && strcmp(*records, record) != 0) {
        records++;
    }
    return *records != NULL;
}

/* Journals of what has ended are kept, but not the room behind them. A file of unchanged length loses just that. */
static void give_back(const struct journal *journal)
{
    if (!journal->file->unwritable && !journal->torn && journal->reserved > journal->length &&
        ftruncate(journal->file->fd, (off_t)journal->length) < 0) {
        log_warning("journal %s: what was reserved behind it cannot be given back: %s",
                    journal->path, strerror(errno));
    }
}

/* --- opening and closing --- */

static struct journal *new_journal(struct journal_syncer *syncer, const char *path, int fd)
{
    struct journal *journal = must_alloc(sizeof *journal);

    journal->syncer = syncer;
    journal->path = must_copy(path);
    journal->file = must_alloc(sizeof *journal->file);
    journal->file->fd = fd;
    journal->file->references = 1;
    journal->reserves = true;
    journal->unsynced_room = UNSYNCED_ROOM;
    journal->unsynced = must_alloc(journal->unsynced_room);
    LIST_INIT(&journal->outstanding);
    return journal;
}

static struct job *next_job(struct journal *journal)
{
    if (!journal->next) {
        journal->next = must_alloc(sizeof *journal->next);
        journal->next->file = journal->file;
        journal->next->result = journal->file->unwritable;
        journal->file->references++;
    }
    return journal->next;
}

void journal_also_sync(struct journal *journal, const char *path)
{
    struct job *job = next_job(journal);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || job->other_count == OTHERS_MAX) {
        job->result = fd < 0 ? errno : ENOBUFS;
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    job->others[job->other_count++] = fd;
}

static void also_sync_own(struct journal *journal)
{
    char *copy = must_copy(journal->path);

    journal_also_sync(journal, dirname(copy));
    free(copy);
}

struct journal *journal_create(struct journal_syncer *syncer, const char *path, struct error *error)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
    struct journal *journal;
    int reason;

    if (fd < 0) {
        error_set(error, "journal-unwritable", "journal %s cannot be made: %s", path,
                  strerror(errno));
        return NULL;
    }
    journal = new_journal(syncer, path, fd);
    reason = reserve(journal, 0);
    if (reason) {
        no_room(journal, reason, error);
        (void)unlink(path);
        journal_free(journal);
        return NULL;
    }
    also_sync_own(journal);
    return journal;
}

struct journal *journal_create_nameless(struct journal_syncer *syncer, const char *directory,
                                        struct error *error)
{
    int fd = open(directory, O_RDWR | O_CLOEXEC | O_TMPFILE, 0600);

    if (fd < 0) {
        error_set(error, "journal-unwritable", "no file can be made in %s: %s", directory,
                  strerror(errno));
        return NULL;
    }
    return new_journal(syncer, directory, fd);
}

/* What stands behind the last whole record is taken back, so that a later one does not make it look like damage. 0 or errno. */
static int take_back(struct journal *journal)
{
    struct stat status;

    if (fstat(journal->file->fd, &status) < 0) {
        return errno;
    }
    if ((size_t)status.st_size > journal->length) {
        if (ftruncate(journal->file->fd, (off_t)journal->length) < 0) {
            return errno;
        }
        journal->reserved = journal->length; /* the room behind the end goes with it */
    }
    journal->torn = false;
    return 0;
}

/* How far the life before had come with bringing the records down is not known: they go with the first sync. 0 or errno. */
static int take_over(struct journal *journal, size_t good_length)
{
    int reason;

    journal->unsynced_room = good_length + UNSYNCED_ROOM;
    journal->unsynced = must_resize(journal->unsynced, journal->unsynced_room);
    journal->file->doubtful = true;
    reason = journal_file_read_start(journal->file->fd, journal->unsynced, good_length);
    return reason ? reason : take_back(journal);
}

struct journal *journal_reopen(struct journal_syncer *syncer, const char *path, size_t good_length,
                               size_t records)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int reason = fd < 0 ? errno : 0;
    struct journal *journal = new_journal(syncer, path, fd);

    journal->length = good_length;
    journal->records = records;
    journal->file->unwritable = reason ? reason : take_over(journal, good_length);
    if (journal->file->unwritable) {
        log_error(
            "journal %s cannot be written on: %s. What it says is carried out all the same, as far as that "
            "needs no new record",
            path, strerror(journal->file->unwritable));
        return journal;
    }
    reason = reserve(journal, 0);
    if (reason) {
        log_warning("journal %s: no room can be reserved for its end: %s. Make room there now",
                    path, strerror(reason));
    }
    also_sync_own(journal);
    return journal;
}

void journal_free(struct journal *journal)
{
    struct job *job;

    if (!journal) {
        return;
    }
    while ((job = LIST_FIRST(&journal->outstanding))) {
        LIST_REMOVE(job, outstanding);
        job->journal = NULL;
    }
    if (journal->next) {
        job_free(journal->next);
    }
    if (journal->ended) {
        give_back(journal);
    }
    file_release(journal->file);
    free(journal->unsynced);
    free(journal->path);
    free(journal);
}

void journal_discard(struct journal *journal)
{
    if (journal && unlink(journal->path) < 0 && errno != ENOENT) {
        log_warning("journal %s could not be removed: %s", journal->path, strerror(errno));
    }
    journal_free(journal);
}

/* --- writing --- */

static void remember_unsynced(struct journal *journal, const char *line, size_t length)
{
    size_t used = journal->length - journal->unsynced_from;

    if (used + length > journal->unsynced_room) {
        journal->unsynced_room = 2 * (used + length);
        journal->unsynced = must_resize(journal->unsynced, journal->unsynced_room);
    }
    memcpy(journal->unsynced + used, line, length);
}

/* 0 or errno. */
static int write_line(struct journal *journal, const char *line, size_t length)
{
    int reason = journal->file->unwritable;

    if (reason == 0 && journal->torn) {
        reason = take_back(journal);
    }
    if (reason) {
        return reason;
    }
    reason = journal_file_write(journal->file->fd, line, length, journal->length);
    if (reason) {
        journal->torn = true;
        (void)take_back(journal); /* if not now, then before the next record */
        return reason;
    }
    remember_unsynced(journal, line, length);
    journal->length += length;
    journal->records++;
    return 0;
}

bool journal_append(struct journal *journal, const char *record, json_t *members,
                    struct error *error)
{
    json_t *object = must_json(json_pack("{ss}", "record", record));
    char *line;
    size_t length;
    int reason;

    if (members) {
        json_object_update(object, members);
        json_decref(members);
    }
    line = journal_file_line(journal->records, object);
    json_decref(object);
    length = strlen(line);
    reason = reserve(journal, length);
    if (reason && is_one_of(beginnings, record)) {
        free(line);
        return no_room(journal, reason, error);
    }
    reason = write_line(journal, line, length);
    free(line);
    if (reason) {
        return error_set(error, "journal-unwritable", "journal %s cannot be written: %s",
                         journal->path, strerror(reason));
    }
    journal->ended = is_one_of(ends, record);
    return true;
}

void journal_sync(struct journal *journal, journal_synced_callback callback, void *context)
{
    struct job *job = next_job(journal);

    journal->next = NULL;
    job->offset = journal->unsynced_from;
    job->length = journal->length - journal->unsynced_from;
    job->text = must_alloc(job->length + 1);
    memcpy(job->text, journal->unsynced, job->length);
    job->callback = callback;
    job->context = context;
    job->journal = journal;
    LIST_INSERT_HEAD(&journal->outstanding, job, outstanding);
    pthread_mutex_lock(&journal->syncer->lock);
    STAILQ_INSERT_TAIL(&journal->syncer->waiting, job, link);
    pthread_cond_signal(&journal->syncer->wake);
    pthread_mutex_unlock(&journal->syncer->lock);
}

const char *journal_path(const struct journal *journal)
{
    return journal->path;
}
