/*
 * Launch rules of devices, their global defaults and objects. Devices are known by name, as some of
 * them open files of the host, or hold state that does not migrate; the properties of those that
 * are known name nothing of the host but option ROMs.
 */
#include "launch_builder.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Patterns of fnmatch(). */
static const char *const devices[] = {
    /* buses */
    "pcie-root-port",
    "ioh3420",
    "x3130-upstream",
    "xio3130-downstream",
    "pci-bridge*",
    "pcie-pci-bridge",
    "i82801b11-bridge",
    "pxb",
    "pxb-pcie",
    "usb-hub",
    "*-usb-uhci*",
    "*-usb-ehci*",
    "usb-ehci",
    "*-xhci",
    "pci-ohci",
    "isa-fdc",
    "isa-ide",
    "*-ide",
    "*-ahci",
    "ahci",
    "vmbus-bridge",
    /* disks */
    "virtio-blk-*",
    "virtio-scsi-*",
    "scsi-hd",
    "scsi-cd",
    "ide-hd",
    "ide-cd",
    "floppy",
    "usb-storage",
    "usb-bot",
    "usb-uas",
    "nvme",
    "nvme-ns",
    "nvme-subsys",
    "sd-card",
    "sdhci-pci",
    "lsi53c810",
    "lsi53c895a",
    "megasas*",
    "mptsas1068",
    "pvscsi",
    "am53c974",
    "dc390",
    /* network */
    "virtio-net-*",
    "e1000*",
    "i8255*",
    "i82562",
    "i82801",
    "igb",
    "ne2k_*",
    "pcnet",
    "rtl8139",
    "tulip",
    "usb-net",
    "vmxnet3",
    /* display and sound */
    "VGA",
    "secondary-vga",
    "isa-vga",
    "cirrus-vga",
    "isa-cirrus-vga",
    "bochs-display",
    "qxl*",
    "ramfb",
    "ati-vga",
    "vmware-svga",
    "virtio-vga",
    "virtio-gpu-pci",
    "virtio-gpu-device",
    "AC97",
    "ES1370",
    "*intel-hda",
    "hda-*",
    "sb16",
    "adlib",
    "gus",
    "cs4231a",
    "usb-audio",
    /* input and consoles */
    "virtio-serial*",
    "virtconsole",
    "virtserialport",
    "virtio-keyboard-*",
    "virtio-mouse-*",
    "virtio-tablet-*",
    "usb-kbd",
    "usb-mouse",
    "usb-tablet",
    "usb-wacom-tablet",
    "usb-serial",
    "usb-ccid",
    "ccid-card-passthru",
    "isa-serial",
    "isa-parallel",
    "pci-serial*",
    "isa-debugcon",
    "isa-debug-exit",
    "vmmouse",
    "i8042",
    /* the rest */
    "virtio-rng-*",
    "virtio-balloon-*",
    "virtio-mem*",
    "virtio-pmem*",
    "virtio-iommu*",
    "vhost-vsock-*",
    "pc-dimm",
    "nvdimm",
    "intel-iommu",
    "amd-iommu",
    "i6300esb",
    "ib700",
    "pvpanic*",
    "vmcoreinfo",
    "vmgenid",
    "acpi-erst",
    "mc146818rtc",
    "isa-applesmc",
    "sga",
    "pci-testdev",
    "edu",
    "*-x86_64-cpu",
    "*-i386-cpu",
};

static const struct {
    const char *pattern;
    const char *why;
} refused_devices[] = {
    {"vfio-*", "a host device that is passed through cannot migrate"},
    {"pci-assign", "a host device that is passed through cannot migrate"},
    {"usb-host", "a host device that is passed through cannot migrate"},
    {"u2f-passthru", "a host device that is passed through cannot migrate"},
    {"scsi-block", "a host device that is passed through cannot migrate"},
    {"scsi-generic", "a host device that is passed through cannot migrate"},
    {"virtio-input-host*", "a host device that is passed through cannot migrate"},
    {"vhost-vdpa*", "it shares memory with a device of this host, which cannot migrate"},
    {"vhost-user-*", "it shares memory with a process of this host, which cannot migrate"},
    {"vhost-scsi*", "the host kernel's SCSI target cannot migrate"},
    {"ivshmem*", "shared memory of this host cannot migrate"},
    {"virtio-9p-*", "a directory of the host cannot migrate"},
    {"usb-mtp", "a directory of the host cannot migrate"},
    {"tpm-*", "the state of a TPM does not travel"},
};

/* Of objects, by qom-type: the specification of their keys (launch_check()). */
static const struct {
    const char *type;
    const char *keys;
} objects[] = {
    {"iothread", "poll-max-ns poll-grow poll-shrink aio-max-batch thread-pool-min thread-pool-max"},
    {"main-loop", "aio-max-batch thread-pool-min thread-pool-max"},
    {"thread-context", "cpu-affinity node-affinity"},
    {"throttle-group", "limits.* x-*"},
    {"memory-backend-ram", "size share prealloc prealloc-threads prealloc-context host-nodes "
                           "policy merge dump reserve x-use-canonical-path-for-ramblock-id"},
    {"memory-backend-memfd", "size share prealloc prealloc-threads prealloc-context host-nodes "
                             "policy merge dump reserve x-use-canonical-path-for-ramblock-id "
                             "hugetlb hugetlbsize seal"},
    {"memory-backend-file", "size share prealloc prealloc-threads prealloc-context host-nodes "
                            "policy merge dump reserve x-use-canonical-path-for-ramblock-id "
                            "mem-path align discard-data"},
    {"rng-builtin", ""},
    {"rng-random", "filename"},
    {"secret", "data file@ format keyid iv"},
    {"tls-creds-x509", "dir/ endpoint priority verify-peer sanity-check passwordid"},
    {"tls-creds-psk", "dir/ endpoint priority verify-peer username"},
    {"tls-creds-anon", "dir/ endpoint priority verify-peer"},
    {"tls-cipher-suites", "priority"},
    {"authz-simple", "identity"},
    {"authz-list", "policy rules*"},
};

static bool judge_driver(struct launch_builder *builder, const char *driver)
{
    if (!driver) {
        return launch_fail(builder, "no driver is named");
    }
    for (size_t i = 0; i < sizeof refused_devices / sizeof refused_devices[0]; i++) {
        if (fnmatch(refused_devices[i].pattern, driver, 0) == 0) {
            return launch_fail(builder, "%.80s: %s", driver, refused_devices[i].why);
        }
    }
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        if (fnmatch(devices[i], driver, 0) == 0) {
            return true;
        }
    }
    return launch_fail(builder, "device \"%.80s\" is not known to the launch rules", driver);
}

/* Puts what becomes of VALUE into OUT. */
static bool judge_property(struct launch_builder *builder, const char *key, const char *value,
                           char out[LAUNCH_PATH_SIZE])
{
    if (strcmp(key, "romfile") == 0) {
        return launch_firmware(builder, value, out);
    }
    if (strcmp(key, "fd") == 0 || strcmp(key, "vhostfd") == 0 || strcmp(key, "vhostfds") == 0) {
        return launch_fail(builder, "%s: descriptors cannot travel", key);
    }
    if (*value == '/') {
        return launch_fail(builder, "%.60s=%.200s names a file of the host", key, value);
    }
    if (strlen(value) >= LAUNCH_PATH_SIZE) {
        return launch_fail(builder, "%.60s is too long", key);
    }
    strcpy(out, value);
    return true;
}

static bool judge_properties(struct launch_builder *builder, struct qemu_options *options)
{
    const char *repeated = qemu_options_repeated(options);
    char value[LAUNCH_PATH_SIZE];

    if (repeated) {
        return launch_fail(builder, "\"%s\" comes twice", repeated);
    }
    for (size_t i = 0; i < options->count; i++) {
        const struct qemu_pair *pair = &options->pairs[i];

        if (!pair->value) {
            continue;
        }
        if (!judge_property(builder, pair->key, pair->value, value)) {
            return false;
        }
        if (strcmp(value, pair->value) != 0 && !launch_set(builder, options, pair->key, value)) {
            return false;
        }
    }
    return true;
}

bool launch_apply_device(struct launch_builder *builder, const struct launch_option *option,
                         const char *argument)
{
    struct qemu_options options;
    bool good = launch_parse(builder, argument, "driver", &options) &&
                judge_driver(builder, qemu_options_get(&options, "driver")) &&
                judge_properties(builder, &options) &&
                launch_emit_options(builder, "-device", &options, "driver");

    (void)option;
    qemu_options_clear(&options);
    return good;
}

/* driver.property=value, as QEMU's own scan takes it: the driver up to the first dot. */
static bool judge_short_global(struct launch_builder *builder, const char *argument)
{
    const char *property = argument + strcspn(argument, ".=") + 1;
    size_t length = strcspn(property, "=");
    char value[LAUNCH_PATH_SIZE], *name = strndup(property, length);
    bool good;

    if (!name) {
        return launch_no_memory(builder);
    }
    good = judge_property(builder, name, property + length + 1, value) &&
           launch_emit(builder, "-global") && launch_emit(builder, argument);
    free(name);
    return good;
}

static bool judge_long_global(struct launch_builder *builder, struct qemu_options *options)
{
    const char *property, *value;
    char out[LAUNCH_PATH_SIZE];

    if (!launch_check(builder, options, "driver property value")) {
        return false;
    }
    property = qemu_options_get(options, "property");
    value = qemu_options_get(options, "value");
    if (!property || !value || !qemu_options_get(options, "driver")) {
        return launch_fail(builder, "it needs driver, property and value");
    }
    return judge_property(builder, property, value, out) &&
           launch_set(builder, options, "value", out) &&
           launch_emit_options(builder, "-global", options, NULL);
}

bool launch_apply_global(struct launch_builder *builder, const struct launch_option *option,
                         const char *argument)
{
    struct qemu_options options;
    size_t dot = strcspn(argument, ".="), equals = strcspn(argument, "=");
    bool good;

    (void)option;
    if (dot > 0 && argument[dot] == '.' && equals > dot + 1 && argument[equals] == '=') {
        return judge_short_global(builder, argument);
    }
    good = launch_parse(builder, argument, NULL, &options) && judge_long_global(builder, &options);
    qemu_options_clear(&options);
    return good;
}

static bool judge_random_source(struct launch_builder *builder, const struct qemu_options *options)
{
    const char *file = qemu_options_get(options, "filename");

    return !file || strcmp(file, "/dev/urandom") == 0 || strcmp(file, "/dev/random") == 0 ||
           strcmp(file, "/dev/hwrng") == 0 ||
           launch_fail(builder, "\"%.200s\" is no source of random numbers", file);
}

static bool judge_memory_file(struct launch_builder *builder, struct qemu_options *options)
{
    const char *path = qemu_options_get(options, "mem-path");
    char directory[LAUNCH_PATH_SIZE];

    return path ? launch_memory_directory(builder, path, directory) &&
                      launch_set(builder, options, "mem-path", directory)
                : launch_fail(builder, "memory-backend-file without mem-path");
}

static bool judge_object(struct launch_builder *builder, struct qemu_options *options)
{
    const char *type = qemu_options_get(options, "qom-type");
    char keys[512];

    if (!type) {
        return launch_fail(builder, "no type is named");
    }
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++) {
        if (strcmp(type, objects[i].type) != 0) {
            continue;
        }
        if (strcmp(type, "rng-random") == 0 && !judge_random_source(builder, options)) {
            return false;
        }
        if (strcmp(type, "memory-backend-file") == 0 && !judge_memory_file(builder, options)) {
            return false;
        }
        snprintf(keys, sizeof keys, "qom-type id %s", objects[i].keys);
        return launch_check(builder, options, keys);
    }
    return launch_fail(builder, "object \"%.80s\" is not allowed", type);
}

bool launch_apply_object(struct launch_builder *builder, const struct launch_option *option,
                         const char *argument)
{
    struct qemu_options options;
    bool good = launch_parse(builder, argument, "qom-type", &options) &&
                judge_object(builder, &options) &&
                launch_emit_options(builder, "-object", &options, "qom-type");

    (void)option;
    qemu_options_clear(&options);
    return good;
}
