/*
 * The table of options. Which of them take an argument was tried with QEMU 7.2; those of later
 * versions are as its documentation has it.
 */
#include "launch_builder.h"

#include <string.h>

#define FLAG(name, verdict, text)              \
    {                                          \
        name, false, verdict, text, NULL, NULL \
    }
#define TEXT(name, verdict, text)             \
    {                                         \
        name, true, verdict, text, NULL, NULL \
    }
#define KEYS(name, implied, keys)                    \
    {                                                \
        name, true, LAUNCH_KEYS, keys, implied, NULL \
    }
#define APPLY(name, function)                          \
    {                                                  \
        name, true, LAUNCH_APPLY, NULL, NULL, function \
    }

/* Machine properties of x86 that are no files, and those that are. */
#define MACHINE_KEYS                                                                               \
    "type accel usb vmport dump-guest-core mem-merge kernel-irqchip nvdimm hmat hpet pit pic smm " \
    "sata smbus i8042 acpi graphics memory-backend pflash0 pflash1 max-ram-below-4g max-fw-size "  \
    "suppress-vmdesc smbios-entry-point-type default-bus-bypass-iommu bus-lock-ratelimit "         \
    "pcspk-audiodev fd-bootchk x-oem-id x-oem-table-id smp.* memory.* boot.order boot.once "       \
    "boot.menu boot.strict boot.reboot-timeout append kernel@ initrd@ dtb@ firmware% "             \
    "aes-key-wrap dea-key-wrap isa-serial rtc ioapic2 pcie auto-kernel-cmdline x-option-roms"

static const char foreign_memory[] = "what it holds does not migrate";
static const char other_control[] = "it could start or stop the guest behind the migration's back";

static const struct launch_option options[] = {
    /* the machine */
    {"machine", true, LAUNCH_APPLY, MACHINE_KEYS, "type", launch_apply_machine},
    {"M", true, LAUNCH_APPLY, MACHINE_KEYS, "type", launch_apply_machine},
    KEYS("accel", "accel",
         "accel thread tb-size split-wx one-insn-per-tb kernel-irqchip kvm-shadow-mem "
         "dirty-ring-size eager-split-size notify-vmexit notify-window"),
    KEYS("name", "guest", "guest process debug-threads"),
    KEYS("boot", "order", "order once menu splash@ splash-time reboot-timeout strict"),
    FLAG("enable-kvm", LAUNCH_KEEP, NULL),
    TEXT("cpu", LAUNCH_KEEP, NULL),
    TEXT("smp", LAUNCH_KEEP, NULL),
    TEXT("m", LAUNCH_KEEP, NULL),
    TEXT("numa", LAUNCH_KEEP, NULL),
    TEXT("uuid", LAUNCH_KEEP, NULL),
    TEXT("rtc", LAUNCH_KEEP, NULL),
    TEXT("k", LAUNCH_WORD, NULL),
    TEXT("vga", LAUNCH_WORD, NULL),
    FLAG("usb", LAUNCH_KEEP, NULL),
    FLAG("nodefaults", LAUNCH_KEEP, NULL),
    FLAG("no-user-config", LAUNCH_KEEP, NULL),
    FLAG("no-acpi", LAUNCH_KEEP, NULL),
    FLAG("no-hpet", LAUNCH_KEEP, NULL),
    FLAG("no-fd-bootchk", LAUNCH_KEEP, NULL),
    FLAG("win2k-hack", LAUNCH_KEEP, NULL),
    FLAG("mem-prealloc", LAUNCH_KEEP, NULL),
    APPLY("mem-path", launch_apply_memory_path),
    KEYS("smbios", NULL,
         "file@ type vendor version date release uefi manufacturer product serial uuid sku family "
         "asset location sock_pfx part max-speed current-speed processor-id processor-family "
         "external_reference internal_reference connector_type port_type value+ path@ loc_pfx bank "
         "speed designation kind instance pcidev"),
    KEYS("fw_cfg", "name", "name file@ string gen_id"),

    /* how it behaves */
    TEXT("watchdog", LAUNCH_WORD, NULL),
    TEXT("watchdog-action", LAUNCH_WORD, NULL),
    TEXT("action", LAUNCH_KEEP, NULL),
    FLAG("no-reboot", LAUNCH_KEEP, NULL),
    FLAG("no-shutdown", LAUNCH_KEEP, NULL),
    FLAG("only-migratable", LAUNCH_KEEP, NULL),
    FLAG("async-teardown", LAUNCH_KEEP, NULL),
    KEYS("run-with", NULL, "async-teardown user"),
    TEXT("runas", LAUNCH_KEEP, NULL),
    TEXT("sandbox", LAUNCH_KEEP, NULL),
    TEXT("overcommit", LAUNCH_KEEP, NULL),
    TEXT("compat", LAUNCH_KEEP, NULL),
    TEXT("msg", LAUNCH_KEEP, NULL),
    TEXT("seed", LAUNCH_WORD, NULL),
    TEXT("echr", LAUNCH_WORD, NULL),
    TEXT("d", LAUNCH_KEEP, NULL),
    TEXT("dfilter", LAUNCH_KEEP, NULL),
    APPLY("D", launch_apply_log),
    FLAG("singlestep", LAUNCH_KEEP, NULL),
    FLAG("one-insn-per-tb", LAUNCH_KEEP, NULL),

    /* what it starts from */
    TEXT("kernel", LAUNCH_FILE, NULL),
    TEXT("initrd", LAUNCH_FILE, NULL),
    TEXT("append", LAUNCH_KEEP, NULL),
    TEXT("dtb", LAUNCH_FILE, NULL),
    KEYS("option-rom", "romfile", "romfile% bootindex"),
    APPLY("bios", launch_apply_firmware),
    APPLY("L", launch_apply_firmware_directory),

    /* devices and what is behind them */
    APPLY("device", launch_apply_device),
    APPLY("global", launch_apply_global),
    APPLY("object", launch_apply_object),
    APPLY("blockdev", launch_apply_blockdev),
    APPLY("drive", launch_apply_drive),
    APPLY("hda", launch_apply_image),
    APPLY("hdb", launch_apply_image),
    APPLY("hdc", launch_apply_image),
    APPLY("hdd", launch_apply_image),
    APPLY("cdrom", launch_apply_image),
    APPLY("fda", launch_apply_image),
    APPLY("fdb", launch_apply_image),
    APPLY("pflash", launch_apply_image),
    APPLY("netdev", launch_apply_netdev),
    APPLY("nic", launch_apply_netdev),
    APPLY("chardev", launch_apply_chardev),
    APPLY("serial", launch_apply_console),
    APPLY("parallel", launch_apply_console),
    APPLY("debugcon", launch_apply_console),
    APPLY("monitor", launch_apply_monitor),
    APPLY("qmp", launch_apply_monitor),
    APPLY("qmp-pretty", launch_apply_monitor),
    APPLY("mon", launch_apply_mon),
    APPLY("display", launch_apply_display),
    APPLY("vnc", launch_apply_vnc),
    APPLY("spice", launch_apply_spice),
    APPLY("audiodev", launch_apply_audio),
    APPLY("audio", launch_apply_audio),

    /* of the source's start only */
    FLAG("S", LAUNCH_DROP, NULL),
    TEXT("incoming", LAUNCH_DROP, NULL),
    TEXT("loadvm", LAUNCH_DROP, NULL),
    FLAG("daemonize", LAUNCH_DROP, NULL),
    TEXT("pidfile", LAUNCH_DROP, NULL),

    /* refused, with a reason */
    FLAG("nographic", LAUNCH_REFUSE,
         "its console and monitor are the terminal that QEMU was started on; use -display none "
         "and -serial unix:"),
    TEXT("net", LAUNCH_REFUSE, "it is not known to the launch rules; use -nic or -netdev"),
    TEXT("usbdevice", LAUNCH_REFUSE, "it is not known to the launch rules; use -device"),
    TEXT("chroot", LAUNCH_REFUSE, "the paths inside it are not known to the destination"),
    TEXT("add-fd", LAUNCH_REFUSE, "descriptors cannot travel"),
    TEXT("tpmdev", LAUNCH_REFUSE, foreign_memory),
    TEXT("virtfs", LAUNCH_REFUSE, "a directory of the host cannot migrate"),
    TEXT("fsdev", LAUNCH_REFUSE, "a directory of the host cannot migrate"),
    TEXT("mtdblock", LAUNCH_REFUSE, foreign_memory),
    TEXT("sd", LAUNCH_REFUSE, foreign_memory),
    TEXT("iscsi", LAUNCH_REFUSE, "images on a network are not moved"),
    TEXT("icount", LAUNCH_REFUSE, "the guest's clock would not go on as it was"),
    FLAG("preconfig", LAUNCH_REFUSE, other_control),
    TEXT("gdb", LAUNCH_REFUSE, other_control),
    FLAG("s", LAUNCH_REFUSE, other_control),
    TEXT("readconfig", LAUNCH_REFUSE, "options in a file cannot be judged"),
    TEXT("set", LAUNCH_REFUSE, "it changes options that have been judged"),
    TEXT("acpitable", LAUNCH_REFUSE, "it is not known to the launch rules"),
    TEXT("plugin", LAUNCH_REFUSE, "programs of the source are not run"),
    TEXT("trace", LAUNCH_REFUSE, "it is not known to the launch rules"),
    FLAG("snapshot", LAUNCH_REFUSE, "writes to a temporary snapshot would not travel"),
};

const struct launch_option *launch_option_find(const char *word)
{
    if (word[0] != '-') {
        return NULL;
    }
    word += word[1] == '-' ? 2 : 1;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (strcmp(options[i].name, word) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

struct launch_argument launch_argument_next(const char *const *argv, size_t argc, size_t *index)
{
    struct launch_argument step = {.word = argv[(*index)++]};

    step.option = launch_option_find(step.word);
    if (step.option && step.option->argument && *index < argc) {
        step.argument = argv[(*index)++];
    }
    return step;
}
