/*
 * Launch rules: what a source's argument vector becomes at the destination, what is refused, and
 * that it stays the same however often a VM moves.
 */
#include "agent/policy/launch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WORDS_MAX 64
#define QEMU "/usr/bin/qemu-system-x86_64"

static const char *const binaries[] = {"/usr/bin/", "/opt/qemu/bin/qemu-kvm"};
static const char *const allowed[] = {"/srv/boot", "/dev/hugepages/", "/etc/tls"};
static const struct launch_disk disks[] = {
    {"/old/a.qcow2", "/pool/a.qcow2", "qcow2"},
    {"b,1.raw", "/pool/b,1.raw", NULL},
};
static const struct launch_rules rules = {
    .binaries = binaries,
    .binary_count = 2,
    .allowed_paths = allowed,
    .allowed_path_count = 3,
    .vm_directory = "/run/watari/vms/web",
    .machine = "pc-q35-7.2",
};

/* A vector out of words separated by blanks; "~" stands for a blank in a word. */
static size_t split(char *text, const char **words)
{
    size_t count = 0;

    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
        assert_true(count < WORDS_MAX);
        words[count++] = word;
        for (char *c = word; (c = strchr(c, '~')); c++) {
            *c = ' ';
        }
    }
    return count;
}

static bool build(const struct launch_rules *with, const char *text, struct launch *out,
                  char error[LAUNCH_ERROR_SIZE])
{
    const char *words[WORDS_MAX];
    char *copy = strdup(text);
    size_t count;
    bool good;

    assert_non_null(copy);
    count = split(copy, words);
    good = launch_build(words, count, with, out, error);
    free(copy);
    return good;
}

static void join(char *const *argv, size_t from, size_t to, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = from; i < to; i++) {
        int length = snprintf(out + used, size - used, "%s%s", i > from ? " " : "", argv[i]);

        assert_true(length > 0 && (size_t)length < size - used);
        used += (size_t)length;
    }
}

/* The options in TEXT become those in WANTED; the machine and the display are given. */
static void check_with(const struct launch_rules *with, const char *text, const char *wanted)
{
    static const char head[] = QEMU " -machine pc -display none ";
    struct launch launch;
    char error[LAUNCH_ERROR_SIZE] = "", whole[4096], got[4096];

    snprintf(whole, sizeof whole, "%s%s", head, text);
    if (!build(with, whole, &launch, error)) {
        fail_msg("%s: %s", text, error);
    }
    join(launch.boot_argv, 5, launch.boot_argc, got, sizeof got);
    assert_string_equal(got, wanted);
    launch_clear(&launch);
}

static void check(const char *text, const char *wanted)
{
    check_with(&rules, text, wanted);
}

static void check_same(const char *text)
{
    check(text, text);
}

/* Refused, with WHY in the sentence. */
static void refuse_with(const struct launch_rules *with, const char *text, const char *why)
{
    struct launch launch;
    char error[LAUNCH_ERROR_SIZE] = "", whole[4096];

    snprintf(whole, sizeof whole, "%s %s", QEMU, text);
    if (build(with, whole, &launch, error)) {
        launch_clear(&launch);
        fail_msg("%s was not refused", text);
    }
    if (!strstr(error, why)) {
        fail_msg("%s: \"%s\" does not say \"%s\"", text, error, why);
    }
    assert_null(launch.argv);
}

static void refuse(const char *text, const char *why)
{
    refuse_with(&rules, text, why);
}

static struct launch_rules with_disks(void)
{
    struct launch_rules copy = rules;

    copy.disks = disks;
    copy.disk_count = 1;
    return copy;
}

static void test_a_whole_vector(void **state)
{
    struct launch_rules with = with_disks();
    struct launch launch;
    char error[LAUNCH_ERROR_SIZE] = "", got[4096];

    (void)state;
    if (!build(&with,
               "qemu-system-x86_64 -name web -M q35,accel=kvm -cpu host -m 2G -nodefaults "
               "--daemonize -pidfile /var/run/web.pid -kernel /srv/boot//vmlinuz "
               "-append console=ttyS0~quiet -drive file=/old/a.qcow2,if=none,id=d0 "
               "-device virtio-blk-pci,drive=d0 -qmp unix:/tmp/qmp.sock,server,nowait "
               "-serial unix:/tmp/serial.sock,server=on -monitor unix:/x/hmp,server=on,wait=off",
               &launch, error)) {
        fail_msg("%s", error);
    }
    join(launch.argv, 0, launch.argc, got, sizeof got);
    assert_string_equal(
        got,
        QEMU " -name web -machine pc-q35-7.2,accel=kvm -cpu host -m 2G -nodefaults "
             "-kernel /srv/boot/vmlinuz -append console=ttyS0 quiet "
             "-drive file=/pool/a.qcow2,if=none,id=d0,format=qcow2 -device virtio-blk-pci,drive=d0 "
             "-qmp unix:/run/watari/vms/web/private/qmp.sock,server=on,wait=off "
             "-serial unix:/run/watari/vms/web/serial.sock,server=on,wait=off "
             "-monitor unix:/run/watari/vms/web/private/hmp,server=on,wait=off -display none "
             "-chardev socket,id=watari-qmp,path=/run/watari/vms/web/private/watari-qmp.sock,"
             "server=on,wait=off -mon chardev=watari-qmp,mode=control -S -incoming defer");
    join(launch.boot_argv, 0, launch.boot_argc, got, sizeof got);
    assert_non_null(strstr(got, "-qmp unix:/run/watari/vms/web/qmp.sock,server=on,wait=off "));
    assert_non_null(strstr(got, "-monitor unix:/run/watari/vms/web/hmp,server=on,wait=off"));
    assert_null(strstr(got, "watari-qmp"));
    assert_null(strstr(got, "-incoming"));
    assert_null(strstr(got, "-S"));
    assert_null(launch.argv[launch.argc]);
    assert_null(launch.boot_argv[launch.boot_argc]);
    assert_int_equal(launch.required_file_count, 1);
    assert_string_equal(launch.required_files[0], "/srv/boot/vmlinuz");
    assert_int_equal(launch.socket_count, 2);
    assert_string_equal(launch.sockets[0].private_path, "/run/watari/vms/web/private/qmp.sock");
    assert_string_equal(launch.sockets[0].public_path, "/run/watari/vms/web/qmp.sock");
    assert_string_equal(launch.qmp_path, "/run/watari/vms/web/qmp.sock");
    launch_clear(&launch);
}

/* The next host's rules differ in paths only: its disks are what this one's became, and back. */
static void test_moves_are_a_fixed_point(void **state)
{
    static const struct launch_disk back[] = {{"/pool/a.qcow2", "/old/a.qcow2", "qcow2"}};
    struct launch_rules there = with_disks(), home = rules;
    struct launch launch;
    char error[LAUNCH_ERROR_SIZE] = "", first[8192], got[8192];

    (void)state;
    home.disks = back;
    home.disk_count = 1;
    assert_true(build(&there,
                      "qemu-system-x86_64 -name web -m 1G -hda /old/a.qcow2 "
                      "-qmp unix:/tmp/qmp.sock,server,nowait -serial mon:unix:/x/qmp.sock,server "
                      "-chardev socket,id=c,path=/y/qmp.sock,server=on "
                      "-mon c,mode=control -chardev file,id=f,path=/l/out,logfile=/m/out "
                      "-serial chardev:f -D /var/log/qemu.log -vnc unix:/x/vnc",
                      &launch, error));
    join(launch.argv, 0, launch.argc, first, sizeof first);
    for (int move = 0; move < 6; move++) {
        struct launch next;

        if (!launch_build((const char *const *)launch.argv, launch.argc, move % 2 ? &there : &home,
                          &next, error)) {
            fail_msg("%s", error);
        }
        launch_clear(&launch);
        launch = next;
        if (move % 2) {
            join(launch.argv, 0, launch.argc, got, sizeof got);
            assert_string_equal(got, first);
        }
    }
    assert_int_equal(launch.socket_count, 3);
    assert_string_equal(launch.sockets[1].public_path, "/run/watari/vms/web/qmp.sock.2");
    assert_string_equal(launch.sockets[2].public_path, "/run/watari/vms/web/qmp.sock.3");
    launch_clear(&launch);
}

static void test_binaries(void **state)
{
    static const struct {
        const char *given, *wanted;
    } good[] = {
        {"qemu-system-aarch64", "/usr/bin/qemu-system-aarch64"},
        {QEMU, QEMU},
        {"/opt/qemu/bin/qemu-kvm", "/opt/qemu/bin/qemu-kvm"},
        {"qemu-kvm", "/opt/qemu/bin/qemu-kvm"},
    };
    static const char *const bad[] = {"/bin/sh",
                                      "sh",
                                      "/usr/bin/qemu-img",
                                      "/usr/bin/../bin/qemu-system-x86_64",
                                      "kvm",
                                      "./qemu-system-x86_64",
                                      "/usr/local/bin/qemu-system-x86_64",
                                      "/usr/bin/qemu-system-x86_64~",
                                      "qemu-system-/../../bin/sh"};
    struct launch launch;
    char error[LAUNCH_ERROR_SIZE] = "";

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(build(&rules, good[i].given, &launch, error));
        assert_string_equal(launch.argv[0], good[i].wanted);
        launch_clear(&launch);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(build(&rules, bad[i], &launch, error));
        assert_non_null(strstr(error, "not a QEMU that this host allows"));
    }
}

static void test_machine(void **state)
{
    struct launch_rules plain = rules;
    struct launch launch;
    char error[LAUNCH_ERROR_SIZE] = "", got[4096];

    (void)state;
    assert_true(build(&rules, QEMU " -M accel=tcg,type=pc,kernel_irqchip=on", &launch, error));
    assert_string_equal(launch.argv[2], "accel=tcg,type=pc-q35-7.2,kernel_irqchip=on");
    launch_clear(&launch);
    assert_true(build(&rules, QEMU " -machine accel=tcg", &launch, error));
    join(launch.boot_argv, 1, launch.boot_argc, got, sizeof got);
    assert_string_equal(got, "-machine accel=tcg -machine pc-q35-7.2 -display none");
    launch_clear(&launch);
    plain.machine = NULL;
    check_with(&plain, "-enable-kvm", "-enable-kvm");
    refuse("-M q35,dumpdtb=/etc/passwd", "\"dumpdtb\" is not known");
    refuse("-M q35,kernel=/etc/shadow", "not under a path");
    refuse("-M q35,confidential-guest-support=sev0", "not known");
    refuse("-accel kvm,device=/etc/passwd", "not known");
}

static void test_kept_and_dropped(void **state)
{
    (void)state;
    check_same("-enable-kvm -cpu max,+x -smp 2 -m 524352k -uuid x -no-reboot -rtc base=utc -msg "
               "timestamp=on -sandbox on,spawn=deny -k en-us -vga std -name x,debug-threads=on");
    check("-S -incoming exec:evil -pidfile /x -daemonize -loadvm s --no-shutdown", "-no-shutdown");
    check("-smbios type=11,value=a,value=b -fw_cfg name=opt/x,string=y -boot menu=on",
          "-smbios type=11,value=a,value=b -fw_cfg opt/x,string=y -boot menu=on");
    check("-bios bios-256k.bin -L /srv/boot/fw -D /tmp/qemu.log -mem-path /dev/hugepages",
          "-bios bios-256k.bin -L /srv/boot/fw -D /run/watari/vms/web/qemu.log.2 "
          "-mem-path /dev/hugepages/");
    check_same("-nodefaults -runas nobody -overcommit mem-lock=off -global ICH9-LPC.disable_s3=1");
}

static void test_refused_options(void **state)
{
    (void)state;
    refuse("-foo", "QEMU option -foo is not known to the launch rules");
    refuse("-nographic", "terminal");
    refuse("-kernel", "argument is missing");
    refuse("-kernel /etc/shadow", "QEMU option -kernel: \"/etc/shadow\" is not under");
    refuse("-kernel /srv/boot/../../etc/shadow", "\"..\"");
    refuse("-kernel /srv/bootleg", "not under");
    refuse("-initrd /srv/boot/a,/etc/shadow", "comma");
    refuse("-initrd srv/boot/a", "absolute");
    refuse("-bios /etc/shadow", "not under");
    refuse("-bios shadow", "absolute");
    refuse("-k ../../etc/passwd", "no word");
    refuse("-L /etc", "not under");
    refuse("-mem-path /dev/hugepages/file", "not itself");
    refuse("-mem-path /srv", "not under");
    refuse("-add-fd fd=3,set=1", "descriptors cannot travel");
    refuse("-readconfig /x", "cannot be judged");
    refuse("-set drive.d0.file=/etc/shadow", "judged");
    refuse("-plugin /x.so", "not run");
    refuse("-net user", "-nic");
    refuse("-usbdevice tablet", "-device");
    refuse("-chroot /x", "destination");
    refuse("-tpmdev passthrough,id=t", "migrate");
    refuse("-virtfs local,path=/,mount_tag=x,security_model=none", "directory");
    refuse("-fsdev local,path=/,id=x", "directory");
    refuse("-icount shift=auto", "clock");
    refuse("--preconfig", "behind");
    refuse("-s", "behind");
    refuse("-snapshot", "temporary");
    refuse("-trace events=/x", "not known");
    refuse("-smbios file=/etc/shadow", "not under");
    refuse("-fw_cfg name=opt/x,file=/etc/shadow", "not under");
    refuse("-boot splash=/etc/shadow", "not under");
    refuse("-name x,guest=y", "comes twice");
    refuse("-display gtk", "desktop");
    refuse("-vnc host:1,reverse=on", "dials out");
    refuse("-vnc :1,tls-creds=t,x509=/etc", "not known");
    refuse("-spice port=1,x509-dir=/etc", "not under");
    refuse("-audiodev alsa,id=a", "sound");
    refuse("-audiodev wav,id=a,path=/etc/x", "sound");
}

static void test_disks(void **state)
{
    struct launch_rules with = with_disks(), both = with_disks(), block = with_disks();
    static const struct launch_disk volume[] = {{"/dev/vg/a", "/pool/a", "raw"}};

    (void)state;
    both.disk_count = 2;
    block.disks = volume;
    check_with(&with,
               "-blockdev driver=file,filename=/old/./a.qcow2,node-name=f "
               "-blockdev driver=qcow2,file=f,node-name=d,backing=",
               "-blockdev file,filename=/pool/a.qcow2,node-name=f "
               "-blockdev qcow2,file=f,node-name=d,backing=");
    check_with(&with,
               "-blockdev {\"driver\":\"qcow2\",\"node-name\":\"d\",\"backing\":null,\"file\":"
               "{\"driver\":\"file\",\"filename\":\"/old//a.qcow2\"}}",
               "-blockdev {\"driver\":\"qcow2\",\"node-name\":\"d\",\"backing\":null,\"file\":"
               "{\"driver\":\"file\",\"filename\":\"/pool/a.qcow2\"}}");
    check_with(&with, "-blockdev qcow2,node-name=d,file.driver=file,file.filename=/old/a.qcow2",
               "-blockdev qcow2,node-name=d,file.driver=file,file.filename=/pool/a.qcow2");
    check_with(&both, "-drive file=/old/a.qcow2 -drive if=virtio,format=raw,file=b,,1.raw",
               "-drive file=/pool/a.qcow2,format=qcow2 "
               "-drive if=virtio,format=raw,file=/pool/b,,1.raw");
    check_with(&with, "/old/a.qcow2", "-drive index=0,media=disk,file=/pool/a.qcow2,format=qcow2");
    check_with(&with, "-hdb /old/a.qcow2",
               "-drive index=1,media=disk,file=/pool/a.qcow2,format=qcow2");
    check_with(&block, "-blockdev host_device,filename=/dev/vg/a,node-name=d",
               "-blockdev file,filename=/pool/a,node-name=d");
    check_same("-drive if=none,id=cd,media=cdrom");
    refuse_with(&with, "-m 1G", "no option names the image \"/old/a.qcow2\"");
    refuse_with(&with, "-drive file=/old/a.qcow2,format=raw", "but the image is qcow2");
}

static void test_media(void **state)
{
    (void)state;
    check("-cdrom /srv/boot/x.iso", "-drive index=2,media=cdrom,file=/srv/boot/x.iso,format=raw");
    check_same("-drive if=pflash,format=raw,readonly=on,file=/srv/boot/code.fd");
    check("-blockdev file,filename=/srv/boot/x.iso,node-name=f -blockdev raw,file=f,node-name=c",
          "-blockdev file,filename=/srv/boot/x.iso,node-name=f,read-only=on "
          "-blockdev raw,file=f,node-name=c");
    check("-blockdev {\"driver\":\"file\",\"filename\":\"/srv/boot/x\",\"read-only\":false}",
          "-blockdev {\"driver\":\"file\",\"filename\":\"/srv/boot/x\",\"read-only\":true}");
    refuse("-hda /srv/boot/x.img", "not read-only");
    refuse("-pflash /srv/boot/vars.fd", "not read-only");
    refuse("-cdrom /etc/shadow", "neither a disk");
    refuse("-cdrom /dev/sr0", "neither a disk");
    refuse("-cdrom /dev/fdset/3", "descriptors");
    refuse("-cdrom x.iso", "neither a disk");
    refuse("-cdrom nbd://host/x", "neither a disk");
    refuse("-drive file=json:{},media=cdrom", "neither a disk");
    refuse("-drive file=/srv/boot/x,readonly=on,format=qcow2", "but the image is raw");
    refuse("-blockdev qcow2,file.driver=file,file.filename=/srv/boot/x", "must be raw");
    refuse("-blockdev file,filename=/srv/boot/x,node-name=f -blockdev qcow2,file=f", "must be raw");
}

static void test_refused_images(void **state)
{
    (void)state;
    refuse("-blockdev nbd,server.type=inet,server.host=x,server.port=1", "beyond this host");
    refuse("-blockdev rbd,pool=x", "beyond");
    refuse("-blockdev https,url=http://x", "beyond");
    refuse("-drive file.driver=ssh,file.host=x", "beyond");
    refuse("-drive format=nbd,file=", "beyond");
    refuse("-blockdev vvfat,dir=/etc", "not known");
    refuse("-blockdev blkdebug,image=f", "not known");
    refuse("-blockdev host_device,filename=/dev/sda", "neither a disk");
    refuse("-blockdev qcow2,file=f,backing=g", "stands alone");
    refuse("-blockdev qcow2,file=f,backing.driver=null-co", "stands alone");
    refuse("-blockdev qcow2,file=f,data-file=g", "not known");
    refuse("-blockdev {\"driver\":\"qcow2\",\"backing\":{\"driver\":\"file\"}}", "stands alone");
    refuse("-blockdev {\"driver\":\"raw\",\"driver\":\"qcow2\"}", "not a valid JSON");
    refuse("-blockdev {\"driver\":\"raw\",\"file.filename\":\"/etc/x\"}", "no valid name");
    refuse("-blockdev raw,size=5,file=f", "not known");
    refuse("-drive snapshot=on,if=none", "snapshot");
    refuse("-drive if=none,if=ide", "comes twice");
    refuse("-drive if=none,opaque", "not known");
    refuse("-drive a..b=c", "does not read");
}

static void test_characters(void **state)
{
    (void)state;
    check_same("-serial none -serial null -serial pty -serial vc -serial vc:80Cx24C -parallel none "
               "-serial chardev:x -monitor none -qmp null");
    check("-serial file:/var/log/a,b -chardev file,id=f,path=/x/c,,d,append=on,logfile=/l/a,,b",
          "-serial file:/run/watari/vms/web/a,b -chardev file,id=f,path=/run/watari/vms/web/c,,d,"
          "append=on,logfile=/run/watari/vms/web/a,,b.2");
    check("-serial tcp::4555,server,nowait,nodelay -serial telnet:localhost:1,server=on",
          "-serial tcp::4555,server=on,wait=off,delay=off "
          "-serial telnet:localhost:1,server=on,wait=off");
    check("-chardev socket,id=s,host=::1,port=1,server=on,wait=on -device isa-serial,chardev=s",
          "-chardev socket,id=s,host=::1,port=1,server=on,wait=off -device isa-serial,chardev=s");
    check("-mon chardev=q,mode=control -chardev socket,server=on,path=/x/private,id=q",
          "-mon q,mode=control -chardev socket,server=on,path=/run/watari/vms/web/"
          "private.2,id=q,wait=off");
    refuse("-serial stdio", "not allowed");
    refuse("-serial mon:stdio", "not allowed");
    refuse("-serial /dev/ttyS0", "not allowed");
    refuse("-serial pipe:/x", "not allowed");
    refuse("-serial udp:host:1", "not allowed");
    refuse("-serial tcp:host:1", "dials out");
    refuse("-serial tcp:host:1,server=on,path=/x", "both");
    refuse("-serial tcp:host:000000000000000000000000000000000001,server=on", "HOST:PORT");
    refuse("-serial tcp:host,server=on", "HOST:PORT");
    refuse("-chardev {\"backend\":\"null\",\"id\":\"x,backend=file,path=/etc/x\"}", "no JSON");
    refuse("-drive {\"id\":\"x,file=/etc/shadow\"}", "no JSON");
    refuse("-display vnc={\"vnc\":\":1\"}", "no JSON");
    refuse("-serial unix:/x", "dials out");
    refuse("-serial unix:/x/..,server=on", "names no file");
    refuse("-qmp tcp::4444,server=on", "before the VM is owned");
    refuse("-qmp pty", "not allowed");
    refuse("-monitor stdio", "not allowed");
    refuse("-chardev pty,id=p -mon p", "a monitor on \"pty\"");
    refuse("-chardev socket,id=s,port=1,server=on -qmp chardev:s", "before the VM is owned");
    refuse("-chardev socket,id=s,fd=3,server=on", "descriptors");
    refuse("-chardev socket,id=s,path=x,abstract=on,server=on", "abstract");
    refuse("-chardev file,id=f,path=/x/..", "names no file");
    refuse("-chardev file,id=f,path=/x,input-path=/etc/shadow", "not known");
    refuse("-chardev pipe,id=f,path=/x", "not allowed");
    refuse("-chardev parport,id=f,path=/x", "not allowed");
}

static void test_devices(void **state)
{
    (void)state;
    check_same("-device virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,romfile= -device VGA");
    check_same(
        "-device {\"driver\":\"pcie-root-port\",\"port\":16,\"chassis\":1,\"bus\":\"pcie.0\"}");
    check_same("-device host-x86_64-cpu,socket-id=1 -device e1000,romfile=efi-e1000.rom");
    refuse("-device vfio-pci,host=01:00.0", "passed through");
    refuse("-device vhost-user-blk-pci,chardev=c", "cannot migrate");
    refuse("-device ivshmem-plain,memdev=m", "cannot migrate");
    refuse("-device loader,file=/etc/shadow", "not known");
    refuse("-device usb-mtp,rootdir=/etc", "cannot migrate");
    refuse("-device e1000,romfile=/etc/shadow", "not under");
    refuse("-device {\"driver\":\"e1000\",\"romfile\":\"/etc/shadow\"}", "not under");
    refuse("-device e1000,x=/etc/shadow", "names a file");
    refuse("-device vhost-vsock-pci,vhostfd=3", "descriptors");
    refuse("-global e1000.romfile=/etc/shadow", "not under");
    refuse("-global driver=e1000,property=romfile,value=/etc/shadow", "not under");
    refuse("-global driver=e1000,value=x", "needs");
}

static void test_objects(void **state)
{
    (void)state;
    check_same("-object iothread,id=io -object memory-backend-memfd,id=m,size=1G,share=on,"
               "host-nodes.0=0,policy=bind -object rng-random,id=r,filename=/dev/urandom "
               "-object secret,id=s,data=a,,b -object throttle-group,id=t,limits.iops-total=5");
    check("-object memory-backend-file,id=m,size=1G,mem-path=/dev/hugepages",
          "-object memory-backend-file,id=m,size=1G,mem-path=/dev/hugepages/");
    check("-object tls-creds-x509,id=t,dir=/etc/tls/,endpoint=server",
          "-object tls-creds-x509,id=t,dir=/etc/tls,endpoint=server");
    check_same("-object {\"qom-type\":\"memory-backend-ram\",\"id\":\"m\",\"size\":5,"
               "\"host-nodes\":[0,1]}");
    refuse("-object memory-backend-file,id=m,size=1,mem-path=/srv/boot/vmlinuz", "not itself");
    refuse("-object rng-random,id=r,filename=/etc/shadow", "no source");
    refuse("-object rng-egd,id=r,chardev=c", "not allowed");
    refuse("-object secret,id=s,file=/etc/shadow", "not under");
    refuse("-object tls-creds-x509,id=t,dir=/root", "not under");
    refuse("-object filter-dump,id=f,file=/etc/cron.d/x", "not allowed");
    refuse("-object pr-manager-helper,id=p,path=/x", "not allowed");
    refuse("-object input-linux,id=i,evdev=/dev/x", "not allowed");
    refuse("-object {\"qom-type\":\"secret\",\"id\":\"s\",\"file\":\"/etc/shadow\"}", "not under");
}

static void test_networks(void **state)
{
    (void)state;
    check_same("-netdev user,id=n,hostfwd=tcp::1-:22,hostfwd=udp::2-:3 -nic none "
               "-nic user,model=e1000 -netdev tap,id=t,ifname=tap0,script=no,downscript=no,"
               "vhost=on -netdev bridge,id=b,br=br0 "
               "-netdev user,id=g,guestfwd=tcp:10.0.2.100:80-chardev:c");
    check_same("-netdev tap,id=t,script=/srv/boot/up,downscript=no");
    check_same("-netdev {\"type\":\"user\",\"id\":\"n\",\"hostfwd\":[{\"str\":\"tcp::1-:22\"}]}");
    refuse("-netdev user,id=n,smb=/etc", "directory");
    refuse("-netdev user,id=n,tftp=/etc", "directory");
    refuse("-netdev user,id=n,guestfwd=tcp:10.0.2.1:80-cmd:/bin/sh", "guestfwd");
    refuse("-netdev user,id=n,guestfwd=tcp:10.0.2.1:80-tcp:host:1", "guestfwd");
    refuse("-netdev {\"type\":\"user\",\"id\":\"n\",\"guestfwd\":[{\"str\":\"tcp:1:8-cmd:x\"}]}",
           "guestfwd");
    refuse("-netdev tap,id=t", "without script=");
    refuse("-netdev tap,id=t,script=/bin/sh", "not under");
    refuse("-netdev tap,id=t,script=no,downscript=/bin/sh", "not under");
    refuse("-netdev tap,id=t,helper=/bin/sh", "not under");
    refuse("-netdev tap,id=t,ifname=../x,script=no", "interface");
    refuse("-netdev tap,id=t,fd=3", "descriptors");
    refuse("-netdev tap,id=t,vhostfds=3:4,script=no", "descriptors");
    refuse("-netdev bridge,id=b,helper=/bin/sh", "not under");
    refuse("-netdev vhost-user,id=v,chardev=c", "not allowed");
    refuse("-netdev socket,id=s,connect=host:1", "not allowed");
    refuse("-netdev stream,id=s,addr.type=unix,addr.path=/x", "not allowed");
    refuse("-nic tap,helper=/bin/sh", "not under");
}

static void test_displays(void **state)
{
    (void)state;
    check_same("-display none -display egl-headless,gl=on -vnc :1,password=on -audiodev none,id=a");
    check("-vnc unix:/x/vnc.sock -display vnc=unix:/y/vnc.sock",
          "-vnc unix:/run/watari/vms/web/vnc.sock "
          "-display vnc=unix:/run/watari/vms/web/vnc.sock.2");
    check("-spice unix=on,addr=/x/spice.sock,disable-ticketing=on",
          "-spice unix=on,addr=/run/watari/vms/web/spice.sock,disable-ticketing=on");
}

static void test_sizes(void **state)
{
    static const char *many[5000];
    struct launch launch;
    char error[LAUNCH_ERROR_SIZE] = "", *big = malloc(130000u + 2000u);
    const char *vector[] = {QEMU, "-append", big};
    struct launch_rules deep = rules;

    (void)state;
    assert_non_null(big);
    for (size_t i = 0; i < 5000; i++) {
        many[i] = i ? "-usb" : QEMU;
    }
    assert_false(launch_build(many, 5000, &rules, &launch, error));
    assert_false(launch_build(many, 0, &rules, &launch, error));
    assert_true(launch_build(many, 4096, &rules, &launch, error));
    launch_clear(&launch);
    memset(big, 'x', 132000u - 1);
    big[132000u - 1] = '\0';
    assert_false(launch_build(vector, 3, &rules, &launch, error));
    assert_non_null(strstr(error, "too long"));
    big[120000] = '\0';
    assert_true(launch_build(vector, 3, &rules, &launch, error));
    launch_clear(&launch);
    /* A directory too deep for the address of a unix socket. */
    big[100] = '\0';
    big[0] = '/';
    deep.vm_directory = big;
    assert_false(launch_build(vector, 1, &deep, &launch, error));
    assert_non_null(strstr(error, "too long a path for a socket"));
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_vector),
        cmocka_unit_test(test_moves_are_a_fixed_point),
        cmocka_unit_test(test_binaries),
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_kept_and_dropped),
        cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_disks),
        cmocka_unit_test(test_media),
        cmocka_unit_test(test_refused_images),
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_displays),
        cmocka_unit_test(test_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
