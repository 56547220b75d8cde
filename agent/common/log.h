/*
 * One line per event on stderr: "LEVEL text", with the sd-daemon prefix (<3>, <6>, ...) when stderr is the journal's
 * (JOURNAL_STREAM set), with a time stamp else. Any thread: one write() a line. No state beyond what the environment says.
 */
#ifndef WATARI_COMMON_LOG_H
#define WATARI_COMMON_LOG_H

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6 };

/* Control characters in what is printed (names and texts come from elsewhere) are replaced by '?'. */
void log_write(enum log_level level, const char *text, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)

#endif
