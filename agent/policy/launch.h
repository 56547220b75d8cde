/*
 * Launch rules: from the argument vector of the source's QEMU to the one the destination starts
 * (DESIGN §8). Pure: it looks at no file; what must exist is listed for the daemon to check. Needs
 * jansson for JSON option values.
 *
 * The vector is parsed into options; what is local is rewritten; anything the rules do not know or
 * allow is refused by name. Nothing ever passes through a shell.
 */
#ifndef WATARI_POLICY_LAUNCH_H
#define WATARI_POLICY_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>

#define LAUNCH_ERROR_SIZE 512

struct launch_disk {
    const char *source_path; /* as the source's QEMU names the image */
    const char *target_path; /* what it becomes here */
    /* "qcow2", "raw", ...: as the image was made here; then a -drive must say the same, or gets it.
     * NULL: not known; a -drive without format= stays so, and QEMU guesses from bytes that the
     * guest wrote. */
    const char *format;
};

struct launch_rules {
    /* Absolute paths, or directories ending in '/' whose qemu-system-* are allowed. */
    const char *const *binaries;
    size_t binary_count;
    /* Directories (or files) that kernels, firmware, read-only media, keys... may come from.
     * Whoever may name a file of a pool as its initrd can read another VM's disk: pools belong here
     * only when all peers may do that. Guest memory may lie in a directory that is itself
     * listed. */
    const char *const *allowed_paths;
    size_t allowed_path_count;
    /* RUN/vms/NAME: sockets, logs and files that QEMU writes are moved here. Its names private,
     * qemu.log and (in private) watari-qmp.sock are left to the daemon. */
    const char *vm_directory;
    const struct launch_disk *disks; /* each must be named by an option */
    size_t disk_count;
    /* The concrete machine type at the source ("pc-q35-7.2"); replaces an alias ("q35", "pc").
     * NULL: leave. */
    const char *machine;
};

/* A user's monitor or console socket: appears at its place only when the VM is owned here. */
struct launch_socket {
    char *private_path; /* where QEMU makes it: under vm_directory/private */
    char *public_path;  /* where the user finds it: under vm_directory */
};

struct launch {
    /* For the incoming start: NULL-terminated, argv[0] is the binary; with our own QMP monitor
     * (-chardev socket,id=watari-qmp,path=VM_DIRECTORY/private/watari-qmp.sock,server=on,wait=off
     * -mon chardev=watari-qmp,mode=control), -S, -incoming defer; without -daemonize and
     * -pidfile. */
    char **argv;
    size_t argc;
    /* The same VM without -incoming and -S and without our monitor, sockets at their public places:
     * what `watari start` runs later. */
    char **boot_argv;
    size_t boot_argc;
    /* Files it names (kernel, initrd, firmware, media, ...), which must exist and be readable. They
     * are judged by name: the daemon must see to it that a symbolic link among them does not lead
     * out of the allowed paths. */
    char **required_files;
    size_t required_file_count;
    struct launch_socket *sockets; /* user's QMP/HMP monitor sockets */
    size_t socket_count;
    char *qmp_path; /* public path of the user's first QMP socket; NULL when the source had none */
};

/* False with a sentence naming the option and why. OUT is then empty. */
bool launch_build(const char *const *source_argv, size_t source_argc,
                  const struct launch_rules *rules, struct launch *out,
                  char error[LAUNCH_ERROR_SIZE]);
void launch_clear(struct launch *launch);

#endif
