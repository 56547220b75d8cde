/*
 * Telling systemd how the daemon is (sd_notify(3)): a datagram to the socket that $NOTIFY_SOCKET
 * names. Loop thread only.
 */
#ifndef WATARI_DAEMON_NOTIFY_H
#define WATARI_DAEMON_NOTIFY_H

/* STATE is "READY=1" and the like. Without $NOTIFY_SOCKET nothing happens; a failure is logged. */
void notify_systemd(const char *state);

#endif
