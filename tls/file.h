/*
 * Small files that must never be seen half written: keys, certificates, the trust store. Private to
 * tls/. These calls block on the disk; any thread. All return 0 or a negative errno with a sentence
 * in ERROR that names the file.
 */
#ifndef WATARI_TLS_FILE_H
#define WATARI_TLS_FILE_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Reads the whole regular file PATH, at most MAX bytes, into *data: allocated, closed by a NUL that
 * *size does not count, the caller's to free (and to wipe). -EPERM when the file has one of the
 * permission bits FORBIDDEN, or belongs to somebody else than us and root: what others may change
 * or read is not ours to rely on. A missing file is -ENOENT.
 */
int tls_file_read(const char *path, size_t max, mode_t forbidden, char **data, size_t *size,
                  char *error, size_t error_size);

/* Makes a new file beside PATH with these bytes and MODE, fsynced. *temporary is its name, the
 * caller's to free; it is NULL, and no file is left, on failure. */
int tls_file_write_beside(const char *path, const void *data, size_t size, mode_t mode,
                          char **temporary, char *error, size_t error_size);

/*
 * Puts these bytes in PATH's place: a new file, fsynced, renamed over it, and the directory
 * fsynced. On failure PATH is as it was, with one exception: when the last step fails (a dying
 * disk), PATH is new but may be old again after a crash.
 */
int tls_file_replace(const char *path, const void *data, size_t size, mode_t mode, char *error,
                     size_t error_size);

/* Makes what was created, renamed or removed in the directory of PATH last through a crash. */
int tls_file_sync_directory(const char *path, char *error, size_t error_size);

#endif
