#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static size_t put_prefix(char *line, size_t size, enum log_level level)
{
    const char *word = level == LOG_LEVEL_ERROR     ? "error: "
                       : level == LOG_LEVEL_WARNING ? "warning: "
                                                    : "";
    struct timespec now;
    struct tm parts;
    char stamp[32] = "";
    int length;

    if (getenv("JOURNAL_STREAM")) {
        length = snprintf(line, size, "<%d>%s", (int)level, word);
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
        if (gmtime_r(&now.tv_sec, &parts)) {
            strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
        }
        length = snprintf(line, size, "%s.%03ldZ %s", stamp, now.tv_nsec / 1000000, word);
    }
    return length < 0 ? 0 : (size_t)length < size ? (size_t)length : size - 1;
}

void log_write(enum log_level level, const char *text, ...)
{
    char line[2048];
    size_t start = put_prefix(line, sizeof line, level);
    size_t length;
    va_list arguments;

    va_start(arguments, text);
    vsnprintf(line + start, sizeof line - start - 1, text, arguments);
    va_end(arguments);
    length = strlen(line);
    for (size_t i = start; i < length; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    line[length++] = '\n';
    /* Nothing sensible can be done when the log itself cannot be written. */
    (void)!write(STDERR_FILENO, line, length);
}
