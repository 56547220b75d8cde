/*
 * Launch rules of images: -drive, -blockdev, -hda and its like. A path is one of the VM's disks,
 * and becomes its new image; or read-only media under an allowed path; or it is refused. Drivers
 * that reach over a network, pass a host's device through or name further files are not known here.
 */
#include "launch_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where an option stands in QEMU's two ways to name an image. */
struct image_option {
    struct launch_builder *builder;
    struct qemu_options *options;
    bool drive; /* -drive: "file" is a path; -blockdev: it is a node */
    bool media;
};

/* The last fragment of keys that say how an image is used, not which. Of encrypt.*, key-secret
 * names a secret object. */
static const char plain_keys[] =
    "if bus unit index media cache aio id serial rerror werror readonly read-only auto-read-only "
    "copy-on-read discard detect-zeroes group node-name locking aio-max-batch drop-cache direct "
    "no-flush writeback lazy-refcounts pass-discard-request pass-discard-snapshot "
    "pass-discard-other discard-no-unref overlap-check template main-header active-l1 active-l2 "
    "refcount-table refcount-block snapshot-table inactive-l1 inactive-l2 bitmap-directory "
    "cache-size l2-cache-size l2-cache-entry-size refcount-cache-size cache-clean-interval "
    "key-secret throttle-group bps bps_rd bps_wr bps_max bps_rd_max bps_wr_max iops iops_rd "
    "iops_wr iops_max iops_rd_max iops_wr_max iops_size bps-total bps-read bps-write iops-total "
    "iops-read iops-write bps-total-max bps-read-max bps-write-max iops-total-max iops-read-max "
    "iops-write-max bps-total-max-length bps-read-max-length bps-write-max-length "
    "iops-total-max-length iops-read-max-length iops-write-max-length iops-size";
static const char parents[] = "file cache encrypt overlap-check throttling";

static const char image_drivers[] =
    "raw qcow2 qcow qed vdi vmdk vhdx vpc parallels luks file host_device throttle copy-on-read "
    "null-co null-aio";
/* What may lie between a device and read-only media: a format that names a backing file would open
 * what nobody judged. */
static const char media_drivers[] = "raw file throttle copy-on-read";
static const char network_drivers[] =
    "nbd rbd iscsi iser http https ftp ftps ssh gluster nfs sheepdog vxhs blkio nvme "
    "nvme-io_uring virtio-blk-vhost-user virtio-blk-vhost-vdpa virtio-blk-vfio-pci";

static bool word_in(const char *list, const char *word, size_t length)
{
    while (*list) {
        size_t next = strcspn(list, " ");

        if (next == length && strncmp(list, word, length) == 0) {
            return true;
        }
        list += next;
        list += strspn(list, " ");
    }
    return false;
}

static bool is_in(const char *list, const char *word)
{
    return word_in(list, word, strlen(word));
}

static const char *last_fragment(const char *key)
{
    const char *dot = strrchr(key, '.');

    return dot ? dot + 1 : key;
}

/* KEY's parent and NAME, as "file.read-only" of "file.filename". */
static void sibling(const char *key, const char *name, char out[LAUNCH_PATH_SIZE])
{
    snprintf(out, LAUNCH_PATH_SIZE, "%.*s%s", (int)(last_fragment(key) - key), key, name);
}

static const struct launch_disk *find_disk(struct launch_builder *builder, const char *path)
{
    char normal[LAUNCH_PATH_SIZE], other[LAUNCH_PATH_SIZE];
    bool is_normal = launch_normal_path(path, normal);

    for (size_t i = 0; i < builder->rules->disk_count; i++) {
        const struct launch_disk *disk = &builder->rules->disks[i];

        if (strcmp(disk->source_path, path) == 0 ||
            (is_normal && launch_normal_path(disk->source_path, other) &&
             strcmp(normal, other) == 0)) {
            builder->disk_used[i] = true;
            return disk;
        }
    }
    return NULL;
}

static bool check_driver(struct launch_builder *builder, const char *driver)
{
    if (!driver || is_in(network_drivers, driver)) {
        return launch_fail(builder, "driver \"%.60s\" reaches beyond this host's images",
                           driver ? driver : "null");
    }
    return is_in(image_drivers, driver) ||
           launch_fail(builder, "driver \"%.60s\" is not known to the launch rules", driver);
}

static const char *drive_format(const struct qemu_options *options)
{
    const char *format = qemu_options_get(options, "format");

    return format ? format : qemu_options_get(options, "driver");
}

/* A -drive without a format makes QEMU guess it from bytes that the guest wrote. */
static bool pin_format(struct image_option *image, const char *wanted)
{
    const char *format = drive_format(image->options);

    if (!format) {
        return launch_set(image->builder, image->options, "format", wanted);
    }
    return strcmp(format, wanted) == 0 ||
           launch_fail(image->builder, "the format is \"%.60s\", but the image is %.60s", format,
                       wanted);
}

static bool use_disk(struct image_option *image, const char *key, const struct launch_disk *disk)
{
    char driver_key[LAUNCH_PATH_SIZE];
    const char *driver;
    bool device = strncmp(disk->target_path, "/dev/", 5) == 0;

    sibling(key, "driver", driver_key);
    driver = qemu_options_get(image->options, driver_key);
    if (driver && strcmp(last_fragment(key), "filename") == 0 &&
        strcmp(driver, device ? "file" : "host_device") == 0 &&
        !launch_set(image->builder, image->options, driver_key, device ? "host_device" : "file")) {
        return false;
    }
    if (image->drive && disk->format && strcmp(key, "filename") != 0 &&
        !pin_format(image, disk->format)) {
        return false;
    }
    return launch_set(image->builder, image->options, key, disk->target_path);
}

static bool use_media(struct image_option *image, const char *key, const char *path)
{
    struct launch_builder *builder = image->builder;
    char normal[LAUNCH_PATH_SIZE], read_only[LAUNCH_PATH_SIZE];
    const char *media = qemu_options_get(image->options, "media");

    if (!launch_normal_path(path, normal) || strncmp(normal, "/dev/", 5) == 0 ||
        !launch_is_allowed(builder, normal)) {
        return launch_fail(builder,
                           "image \"%.200s\" is neither a disk of this VM nor read-only media "
                           "under a path that this host allows",
                           path);
    }
    image->media = true;
    if (!launch_strings_have(&builder->required_files, normal) &&
        !launch_strings_add(&builder->required_files, normal)) {
        return launch_no_memory(builder);
    }
    if (image->drive) {
        if (!qemu_options_is_on(image->options, "readonly") &&
            !qemu_options_is_on(image->options, "read-only") &&
            !(media && strcmp(media, "cdrom") == 0)) {
            return launch_fail(builder, "image \"%.200s\" is no disk of this VM and not read-only",
                               path);
        }
        return launch_set(builder, image->options, key, normal) && pin_format(image, "raw");
    }
    sibling(key, "read-only", read_only);
    return launch_set(builder, image->options, key, normal) &&
           (qemu_options_set_flag(image->options, read_only, true) || launch_no_memory(builder));
}

static bool judge_path(struct image_option *image, const char *key, const char *path)
{
    const struct launch_disk *disk;

    if (!path) {
        return launch_fail(image->builder, "%s: null is no image", key);
    }
    if (image->drive && *path == '\0' && strcmp(key, "file") == 0) {
        return true; /* An empty drive. */
    }
    if (strncmp(path, "/dev/fdset/", strlen("/dev/fdset/")) == 0) {
        return launch_fail(image->builder, "\"%.200s\": descriptors cannot travel", path);
    }
    disk = find_disk(image->builder, path);
    return disk ? use_disk(image, key, disk) : use_media(image, key, path);
}

static bool judge_node(struct image_option *image, const char *node)
{
    if (!node) {
        return launch_fail(image->builder, "file: null is no node");
    }
    image->media = image->media || launch_strings_have(&image->builder->media_nodes, node);
    return true;
}

static bool check_parents(struct launch_builder *builder, const char *key)
{
    for (const char *part = key, *dot; (dot = strchr(part, '.')); part = dot + 1) {
        if (!word_in(parents, part, (size_t)(dot - part))) {
            return launch_fail(builder, "\"%s\" is not known to the launch rules", key);
        }
    }
    return true;
}

static bool judge_key(struct image_option *image, size_t index)
{
    struct launch_builder *builder = image->builder;
    const char *key = image->options->pairs[index].key;
    const char *value = image->options->pairs[index].value;
    const char *last = last_fragment(key);

    if (strncmp(key, "backing", 7) == 0 || strcmp(last, "backing") == 0 ||
        strstr(key, ".backing.")) {
        return !value || *value == '\0' ||
               launch_fail(builder,
                           "\"%s\": the destination's image stands alone, without a backing file",
                           key);
    }
    if (strcmp(key, "snapshot") == 0) {
        return (value && strcmp(value, "off") == 0) ||
               launch_fail(builder, "writes to a temporary snapshot would not travel");
    }
    if (!check_parents(builder, key)) {
        return false;
    }
    if (strcmp(last, "filename") == 0 || (image->drive && strcmp(key, "file") == 0)) {
        return judge_path(image, key, value);
    }
    if (strcmp(last, "file") == 0) {
        return judge_node(image, value);
    }
    if (strcmp(key, "encrypt.format") == 0) {
        return true;
    }
    if (strcmp(last, "driver") == 0 || strcmp(key, "format") == 0) {
        return check_driver(builder, value);
    }
    return is_in(plain_keys, last) ||
           launch_fail(builder, "\"%s\" is not known to the launch rules", key);
}

/* All drivers over media are harmless ones, and whoever uses these nodes later is held to the
 * same. */
static bool close_media(struct image_option *image)
{
    struct launch_builder *builder = image->builder;

    for (size_t i = 0; i < image->options->count; i++) {
        const struct qemu_pair *pair = &image->options->pairs[i];
        const char *last = last_fragment(pair->key);

        if ((strcmp(last, "driver") == 0 || strcmp(pair->key, "format") == 0) &&
            !is_in(media_drivers, pair->value)) {
            return launch_fail(builder, "read-only media must be raw, not %.60s", pair->value);
        }
        if (strcmp(last, "node-name") == 0 && pair->value &&
            !launch_strings_add(&builder->media_nodes, pair->value)) {
            return launch_no_memory(builder);
        }
    }
    return true;
}

static bool judge_image(struct image_option *image)
{
    const char *repeated = qemu_options_repeated(image->options);

    if (repeated) {
        return launch_fail(image->builder, "\"%s\" comes twice", repeated);
    }
    /* Pairs that the rules themselves add come last and need no judgement. */
    for (size_t i = 0, count = image->options->count; i < count; i++) {
        if (!judge_key(image, i)) {
            return false;
        }
    }
    return !image->media || close_media(image);
}

bool launch_apply_drive(struct launch_builder *builder, const struct launch_option *option,
                        const char *argument)
{
    struct qemu_options options;
    struct image_option image = {.builder = builder, .options = &options, .drive = true};
    bool good;

    (void)option;
    good = launch_parse(builder, argument, NULL, &options) && judge_image(&image) &&
           launch_emit_options(builder, "-drive", &options, NULL);
    qemu_options_clear(&options);
    return good;
}

bool launch_apply_blockdev(struct launch_builder *builder, const struct launch_option *option,
                           const char *argument)
{
    struct qemu_options options;
    struct image_option image = {.builder = builder, .options = &options};
    bool good;

    (void)option;
    good = launch_parse(builder, argument, "driver", &options) && judge_image(&image) &&
           launch_emit_options(builder, "-blockdev", &options, "driver");
    qemu_options_clear(&options);
    return good;
}

/* What QEMU's own start makes of -hda FILE and its like (system/vl.c there): the -drive options it
 * adds. */
static const struct {
    const char *name;
    const char *drive;
} image_options[] = {
    {"hda", "index=0,media=disk"}, {"hdb", "index=1,media=disk"},    {"hdc", "index=2,media=disk"},
    {"hdd", "index=3,media=disk"}, {"cdrom", "index=2,media=cdrom"}, {"fda", "if=floppy,index=0"},
    {"fdb", "if=floppy,index=1"},  {"pflash", "if=pflash"},
};

bool launch_apply_image(struct launch_builder *builder, const struct launch_option *option,
                        const char *argument)
{
    struct qemu_options options = {0};
    struct image_option image = {.builder = builder, .options = &options, .drive = true};
    bool good = false;

    for (size_t i = 0; i < sizeof image_options / sizeof image_options[0]; i++) {
        if (strcmp(option->name, image_options[i].name) == 0) {
            good = launch_parse(builder, image_options[i].drive, NULL, &options) &&
                   launch_set(builder, &options, "file", argument) && judge_image(&image) &&
                   launch_emit_options(builder, "-drive", &options, NULL);
        }
    }
    qemu_options_clear(&options);
    return good;
}
