/*
 * The program that a test guest runs: loads memory and disks with content it can verify, answers
 * probes on the network, and obeys lines on the serial console. It knows nothing of migrations;
 * it only notices when something it wrote is no longer there.
 *
 * Arguments are the words of the kernel's command line, of which it takes: wmb= (MiB of memory),
 * wrate= (MiB/s rewritten), wkind=text|noise|words, ddisk= (devices, by commas), dmb= (MiB at
 * the end of each), drate= (KiB/s), files= (a device whose file system init has mounted on
 * /files).
 *
 * Each line on the console gets one line back: status, verify, stop, go, rate memory KIND MIB,
 * rate disk KIND KIB, discard, poweroff. When a line begins with "#WORD ", so does the answer:
 * it tells a late answer from the one that is waited for.
 */
#include "disk.h"
#include "echo.h"
#include "fault.h"
#include "files.h"
#include "memory.h"
#include "pace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

#define TICK_NS (PACE_SECOND_NS / 10)
#define FILES_ROOT "/files"

struct options {
    uint32_t memory_mib;
    uint32_t memory_rate;
    enum pattern_kind kind;
    const char *disks;
    uint32_t disk_mib;
    uint32_t disk_rate;
    bool files;
};

struct ticker {
    uint64_t started_ns;
    _Atomic uint64_t ticks;
};

struct workload {
    struct memory_load memory;
    struct disk_load disk;
    struct echo echo;
    struct ticker ticker;
    bool files;
};

static bool parse_number(const char *text, uint32_t *number)
{
    unsigned long long value;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    *number = (uint32_t)value;
    return errno == 0 && end != text && *end == '\0' && value <= UINT32_MAX;
}

/* When WORD is "NAME=...": where its value begins, else NULL. */
static const char *value_of(const char *word, const char *name)
{
    size_t length = strlen(name);

    return strncmp(word, name, length) == 0 && word[length] == '=' ? word + length + 1 : NULL;
}

static bool parse_number_word(const char *word, struct options *options, bool *good)
{
    const struct {
        const char *name;
        uint32_t *number;
    } numbers[] = {
        {"wmb", &options->memory_mib},
        {"wrate", &options->memory_rate},
        {"dmb", &options->disk_mib},
        {"drate", &options->disk_rate},
    };

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const char *value = value_of(word, numbers[i].name);

        if (value == NULL)
            continue;
        *good = parse_number(value, numbers[i].number);
        return true;
    }
    return false;
}

/* False when WORD is one of ours and makes no sense; the kernel's own words are passed over. */
static bool parse_word(const char *word, struct options *options)
{
    const char *value;
    bool good = true;

    if (parse_number_word(word, options, &good))
        return good;
    if ((value = value_of(word, "wkind")) != NULL)
        return pattern_kind_parse(value, &options->kind);
    if ((value = value_of(word, "ddisk")) != NULL)
        options->disks = value;
    else if (value_of(word, "files") != NULL)
        options->files = true;
    return true;
}

/* Catches up when it was late, so that ticks stay what the guest's clock says: a gap or a repeat
 * shows in status. */
static void *ticker_run(void *argument)
{
    struct ticker *ticker = argument;
    uint64_t next = ticker->started_ns;

    for (;;) {
        struct timespec wake;

        next += TICK_NS;
        wake.tv_sec = (time_t)(next / PACE_SECOND_NS);
        wake.tv_nsec = (long)(next % PACE_SECOND_NS);
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL) == EINTR)
            ;
        atomic_fetch_add(&ticker->ticks, 1);
    }
    return NULL;
}

/* Twice: from the page cache, which is memory, and then from the disk. */
static void verify_files(struct workload *work, struct fault *fault, size_t *files)
{
    int fd;

    *files = 0;
    if (!work->files || fault_any(fault))
        return;
    files_verify(FILES_ROOT, fault, files);
    fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "3", 1) != 1)
        fault_record(fault, "drop_caches (%s)", strerror(errno));
    if (fd >= 0)
        close(fd);
    if (!fault_any(fault))
        files_verify(FILES_ROOT, fault, files);
}

static void answer_verify(struct workload *work, const char *line)
{
    struct fault memory = {0};
    struct fault disk = {0};
    struct fault file = {0};
    size_t pages;
    size_t blocks;
    size_t files;

    (void)line;
    memory_verify(&work->memory, &memory, &pages);
    disk_verify(&work->disk, &disk, &blocks);
    verify_files(work, &file, &files);
    if (fault_any(&memory) || fault_any(&disk) || fault_any(&file))
        printf("CORRUPT %s%s%s%s%s\n", memory.text, fault_any(&memory) ? "; " : "", disk.text,
               fault_any(&disk) ? "; " : "", file.text);
    else
        printf("INTACT memory=%zu disk=%zu files=%zu counter=%llu\n", pages, blocks, files,
               (unsigned long long)atomic_load(&work->ticker.ticks));
}

static void answer_status(struct workload *work, const char *line)
{
    /* Together and in this order: ticks that are ahead of the clock came twice. */
    uint64_t ticks = atomic_load(&work->ticker.ticks);
    uint64_t uptime = pace_now() - work->ticker.started_ns;

    (void)line;
    printf("STATUS ticks=%llu uptime_ms=%llu pages=%llu blocks=%llu answers=%llu\n",
           (unsigned long long)ticks, (unsigned long long)(uptime / 1000000),
           (unsigned long long)memory_written(&work->memory),
           (unsigned long long)disk_written(&work->disk),
           (unsigned long long)atomic_load(&work->echo.answers));
}

static void answer_discard(struct workload *work, const char *line)
{
    struct disk_discarded discarded;

    (void)line;
    if (disk_discard(&work->disk, &discarded))
        printf("DISCARDED zero=%zu kept=%zu\n", discarded.zero, discarded.kept);
    else
        printf("ERROR discard: %s\n", strerror(errno));
}

static void set_going(struct workload *work, bool going)
{
    memory_set_going(&work->memory, going);
    disk_set_going(&work->disk, going);
    printf("OK %s\n", going ? "going" : "stopped");
}

static void answer_stop(struct workload *work, const char *line)
{
    (void)line;
    set_going(work, false);
}

static void answer_go(struct workload *work, const char *line)
{
    (void)line;
    set_going(work, true);
}

static void answer_rate(struct workload *work, const char *line)
{
    char what[8] = "";
    char name[8] = "";
    unsigned rate = 0;
    enum pattern_kind kind;

    if (sscanf(line, "rate %7s %7s %u", what, name, &rate) != 3 || !pattern_kind_parse(name, &kind))
        what[0] = '\0';
    if (strcmp(what, "memory") == 0)
        memory_set_rate(&work->memory, kind, rate);
    else if (strcmp(what, "disk") == 0)
        disk_set_rate(&work->disk, kind, rate);
    else
        what[0] = '\0';
    if (what[0] != '\0')
        printf("OK %s %s %u\n", what, name, rate);
    else
        printf("ERROR rate memory text|noise|words MIB, or: rate disk text|noise|words KIB\n");
}

static void answer_poweroff(struct workload *work, const char *line)
{
    (void)work;
    (void)line;
    printf("OK power off\n");
    fflush(stdout);
    tcdrain(STDOUT_FILENO);
    reboot(RB_POWER_OFF);
}

static void answer(struct workload *work, const char *line)
{
    static const struct {
        const char *name;
        void (*answer)(struct workload *, const char *line);
    } commands[] = {
        {"status", answer_status},     {"verify", answer_verify},
        {"stop", answer_stop},         {"go", answer_go},
        {"rate", answer_rate},         {"discard", answer_discard},
        {"poweroff", answer_poweroff},
    };
    size_t length = strcspn(line, " ");

    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strlen(commands[i].name) == length && memcmp(commands[i].name, line, length) == 0) {
            commands[i].answer(work, line);
            return;
        }
    }
    printf("ERROR unknown command\n");
}

static void obey_console(struct workload *work)
{
    char line[256];

    while (fgets(line, sizeof line, stdin) != NULL) {
        char *command = line;

        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '#') {
            command = line + strcspn(line, " ");
            printf("%.*s ", (int)(command - line), line);
            command += strspn(command, " ");
        }
        if (command[0] == '\0' && command == line)
            continue;
        answer(work, command);
        fflush(stdout);
    }
}

/* The console's echo and its carriage returns would only be in the way of whoever reads the
 * answers. */
static void make_console_plain(void)
{
    struct termios modes;

    if (tcgetattr(STDIN_FILENO, &modes) < 0)
        return;
    modes.c_iflag |= ICRNL;
    modes.c_oflag &= ~(tcflag_t)OPOST;
    modes.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
    modes.c_lflag |= ICANON;
    tcsetattr(STDIN_FILENO, TCSANOW, &modes);
}

static bool start_thread(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    int code = pthread_create(&thread, NULL, body, argument);

    if (code != 0)
        printf("FAILED thread: %s\n", strerror(code));
    return code == 0;
}

static bool start(struct workload *work, const struct options *options)
{
    struct fault fault = {0};
    size_t files = 0;

    work->files = options->files;
    if (!memory_init(&work->memory, options->memory_mib, options->kind, options->memory_rate)) {
        printf("FAILED memory: not %u MiB of it\n", options->memory_mib);
        return false;
    }
    if (!disk_init(&work->disk, options->disks, options->disk_mib, options->kind,
                   options->disk_rate)) {
        printf("FAILED %s\n", work->disk.fault.text);
        return false;
    }
    if (work->files)
        files_verify(FILES_ROOT, &fault, &files);
    if (fault_any(&fault)) {
        printf("FAILED %s\n", fault.text);
        return false;
    }
    if (!echo_init(&work->echo)) {
        printf("FAILED echo: %s\n", strerror(errno));
        return false;
    }
    work->ticker.started_ns = pace_now();
    return start_thread(ticker_run, &work->ticker) && start_thread(echo_run, &work->echo) &&
           start_thread(memory_run, &work->memory) && start_thread(disk_run, &work->disk);
}

int main(int argc, char **argv)
{
    struct workload work = {0};
    struct options options = {.kind = PATTERN_TEXT, .disks = "", .disk_mib = 64};

    make_console_plain();
    for (int i = 1; i < argc; i++) {
        if (!parse_word(argv[i], &options)) {
            printf("FAILED not understood: %s\n", argv[i]);
            return 1;
        }
    }
    if (!start(&work, &options)) {
        fflush(stdout);
        return 1;
    }
    printf("READY memory=%zu disks=%zu\n", work.memory.expected.count, work.disk.count);
    fflush(stdout);
    obey_console(&work);
    return 0;
}
