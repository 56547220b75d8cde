/*
 * Removing a directory with what is in it. Any thread.
 */
#ifndef WATARI_DAEMON_TREE_H
#define WATARI_DAEMON_TREE_H

/* Follows no symbolic link and crosses no mount. 0, also when PATH is not there; -1 with errno. */
int tree_remove(const char *path);

#endif
