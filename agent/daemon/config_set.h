/*
 * Private to config*.c: one setting at a time, whether it came from the file or from the command
 * line, and reading the file.
 */
#ifndef WATARI_DAEMON_CONFIG_SET_H
#define WATARI_DAEMON_CONFIG_SET_H

#include "config.h"

#define CONFIG_MAX_SETTINGS 16

/* The place of SECTION's KEY in the table of settings, for "given twice"; -1 when there is no such
 * single-valued setting. */
int config_setting_index(const char *section, const char *key);
bool config_has_section(const char *section);

/* Checks VALUE and puts it into CONFIG; a value that was there is replaced, repeatable ones are
 * added to. False with "config". */
bool config_set(struct config *config, const char *section, const char *key, const char *value,
                struct error *error);

/* Reads PATH into CONFIG. A missing file is an error only when MUST_EXIST. False with "config":
 * "FILE:LINE: text". */
bool config_read_file(struct config *config, const char *path, bool must_exist,
                      struct error *error);

#endif
