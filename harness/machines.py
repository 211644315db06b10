# SPDX-License-Identifier: GPL-2.0-only
"""What the programs of harness/userland need of their machine: files, devices, a second start."""
import glob
import os
import re
import shutil
import threading

from common import CROSS, Fail, HARNESS, read, run, write

FOREIGN = "/opt/arm64"                      # from harness/packages
STRESS = FOREIGN + "/usr/bin/stress-ng"
LOADER = "ld-linux-aarch64.so.1"
EFI = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"


def _libraries(program):
    """The shared libraries that a program of FOREIGN needs, by their paths there."""
    have = {os.path.basename(p): p for p in glob.glob(FOREIGN + "/usr/lib/**/*.so*", recursive=True)}
    todo, found = [program], {}
    while todo:
        for name in re.findall(r"NEEDED.*\[(.*)\]", run([CROSS + "readelf", "-d", todo.pop()])):
            if name in found:
                continue
            if name not in have:
                raise Fail(f"{name}, which {os.path.basename(program)} needs, is missing: "
                           "see 'foreign' in harness/packages")
            found[name] = have[name]
            todo.append(have[name])
    return found.values()


_in_source = threading.Lock()               # selftests/mm and modules write beside their sources


def selftests(k):
    """The kernel's own mm selftests, those that build statically; returns their folder."""
    headers, out = os.path.join(k.out, "headers"), os.path.join(k.out, "selftests")
    os.makedirs(out, exist_ok=True)
    log = f"selftests {k.name}"
    with _in_source:
        run(["make", "-s", "-C", k.tree, f"O={headers}", "ARCH=arm64", "headers"], log=log)
        # What needs libraries that are not there does not build; init says so.
        run(["make", "-s", "-k", f"-j{os.cpu_count()}", "-C", os.path.join(k.tree, "tools/testing/selftests/mm"),
             "ARCH=arm64", f"CROSS_COMPILE={CROSS}", "LDFLAGS=-static", f"OUTPUT={out}",
             f"KHDR_INCLUDES=-isystem {headers}/usr/include"], log=log, check=False)
        os.replace(_small_uffd(k, headers, log), out + "/uffd-unit-tests")
    return out


# What uffd-unit-tests.c says about how much memory it takes, and what it is to say.
UFFD_SIZES = {"(32UL << 20)": "(8UL << 20)",
              "MAX(UFFD_TEST_MEM_SIZE, gopts.page_size * 2)":
              'MAX(gopts.page_size > psize() || strstr(test->name, "pmd") || strstr(test->name, "collapse") ? '
              "UFFD_TEST_MEM_SIZE : 32 * psize(), gopts.page_size * 2)"}


def _small_uffd(k, headers, log):
    """uffd-unit-tests once more: each of its tests takes page after page of 32 MB, each page a switch to another
    thread and back, and under an emulator that is minutes. 8 MB are four huge pages, the fewest with which none of
    them is skipped, and 32 pages are enough where none is huge. Returns its path."""
    tests, program = os.path.join(k.tree, "tools/testing/selftests"), os.path.join(k.out, "uffd-unit-tests")
    text = read(os.path.join(tests, "mm/uffd-unit-tests.c"))
    for was, small in UFFD_SIZES.items():
        if was not in text:
            raise Fail("uffd-unit-tests.c does not say any more how much memory it takes: see _small_uffd()")
        text = text.replace(was, small)
    write(program + ".c", text)
    run([CROSS + "gcc", "-static", "-O2", "-no-pie", "-D_GNU_SOURCE=", "-U_FORTIFY_SOURCE",
         *(f"-I{path}" for path in (tests + "/mm", tests, k.tree)),
         "-isystem", headers + "/usr/include", "-isystem", k.tree + "/tools/include/uapi",
         "-o", program, program + ".c",
         *(f"{tests}/mm/{name}.c" for name in ("uffd-common", "vm_util", "hugepage_settings")), "-lrt", "-lpthread"],
        log=log)
    return program


def _compile(source, program):
    run([CROSS + "gcc", "-static", "-O2", "-Wall", "-o", program, os.path.join(HARNESS, "userland", source)])


def _module(k, name, root):
    """Build harness/NAME against the kernel, and put it into @root."""
    source = os.path.join(k.out, name + "-module")
    shutil.copytree(os.path.join(HARNESS, name), source, dirs_exist_ok=True)
    with _in_source:
        run(["make", "-s", "-C", k.out, f"M={source}", "ARCH=arm64", f"CROSS_COMPILE={CROSS}", "modules"],
            log=f"{name} {k.name}")
    shutil.copy(os.path.join(source, name + ".ko"), root)


class Machine:
    """One that needs nothing; @program may be None."""
    memory = 1024           # in MB
    append = ""             # to the command line
    starts = 1              # how many times the emulator is started, for one run
    times = 1               # how many times the usual limit one start may take
    more_seconds = 0

    def __init__(self, program, k, seconds):
        self.program, self.k = program, k
        if program:
            # init gets what the kernel does not know as environment variables.
            self.append += f" program={program} seconds={seconds}"

    def files(self, root, plain):
        """Add to the userland in @root; @plain() makes one without what this adds."""
        _compile("tables.c", root + "/tables")
        if self.program:
            shutil.copy(os.path.join(HARNESS, "userland", self.program), root)

    def arguments(self):
        """For the emulator."""
        return []


class Work(Machine):
    def __init__(self, program, k, seconds):
        super().__init__(program, k, seconds)
        # The selftests take minutes if the machine has other things to do; so may the last round of a soak.
        self.times, self.more_seconds = (4, 60 * seconds) if program == "workload" else (2, seconds)
        if k.has("CONFIG_ARM64_64K_PAGES=y"):
            # The selftests map two huge pages, and such a one has 512 MB.
            self.memory = 6144
        elif k.has("CONFIG_ARM64_16K_PAGES=y"):
            # Each worker of test_vmalloc fills thousands of pages.
            self.memory = 2048

    def tools(self, root):
        """stress-ng, and a module."""
        for d in ("/usr/bin", "/usr/lib", "/lib"):
            os.makedirs(root + d, exist_ok=True)
        shutil.copy(os.path.join(HARNESS, "userland/stress"), root)
        shutil.copy(STRESS, root + "/usr/bin")
        for path in _libraries(STRESS):
            shutil.copy(path, root + ("/lib" if os.path.basename(path) == LOADER else "/usr/lib"))
        shutil.copy(os.path.join(self.k.out, "lib/test_vmalloc.ko"), root)
        _compile("load.c", root + "/load")

    def files(self, root, plain):
        super().files(root, plain)
        self.tools(root)
        shutil.copytree(selftests(self.k), root + "/selftests")


class Kexec(Machine):
    memory, times = 2048, 2

    def files(self, root, plain):
        super().files(root, plain)
        shutil.copy(os.path.join(self.k.out, "arch/arm64/boot/Image"), root)
        shutil.move(plain(), root + "/initrd")
        _compile("kexec.c", root + "/kexec-load")

    def arguments(self):
        # Without firmware nobody keeps the tables of the ITS from the second kernel, which clears them.
        return ["-machine", "its=off"]


class Hibernate(Machine):
    append, starts, times = "resume=/dev/vda", 2, 2

    def arguments(self):
        disk = os.path.join(self.k.out, "swap")
        with open(disk, "wb") as f:
            f.truncate(1 << 30)
        return ["-drive", f"if=none,id=swap,format=raw,file={disk}", "-device", "virtio-blk-device,drive=swap"]


class Hotplug(Machine):
    # What is behind is there to be added.
    append, times = "mem=512M", 2

    def files(self, root, plain):
        super().files(root, plain)
        _module(self.k, "hotplug", root)


class Forge(Machine):
    def files(self, root, plain):
        super().files(root, plain)
        _module(self.k, "forge", root)
        _compile("load.c", root + "/load")


class Efi(Machine):
    times = 2

    def arguments(self):
        if not os.path.exists(EFI):
            raise Fail(f"{EFI} is missing in the toolchain root: see harness/packages")
        # Or the firmware hands over ACPI tables instead of the device tree, which is all that the kernel reads.
        return ["-machine", "acpi=off", "-bios", EFI]


class Case(Work):
    """That of a case of harness/field; @program: its name."""
    def __init__(self, program, k, seconds):
        super().__init__(program, k, seconds)
        head = self.head(program)
        self.memory, self.more_seconds = int(head.get("memory", 1024)), 60 * seconds
        self.append = f"{head.get('append', '')} program=functions case={program} seconds={seconds}"

    @staticmethod
    def head(name):
        """What the comments of the script say."""
        return dict(re.findall(r"^# (\w+): (.*)$", read(os.path.join(HARNESS, "field", name)), re.M))

    @staticmethod
    def build(k):
        """What all cases use."""
        selftests(k)
        out, tools = os.path.join(k.out, "selftests"), os.path.join(k.tree, "tools")
        headers = f"KHDR_INCLUDES=-isystem {k.out}/headers/usr/include"
        with _in_source:
            # What the compiler does not know does not build; then a case says so.
            run(["make", "-s", "-k", f"-j{os.cpu_count()}", "-C", tools + "/testing/selftests/arm64", "ARCH=arm64",
                 f"CC={CROSS}gcc -static", f"CROSS_COMPILE={CROSS}", f"OUTPUT={out}/arm64",
                 headers], log=f"selftests arm64 {k.name}", check=False)
            if k.has("CONFIG_KVM=y"):
                os.makedirs(out + "/kvm", exist_ok=True)
                run(["make", "-s", f"-j{os.cpu_count()}", "-C", tools + "/testing/selftests/kvm", "ARCH=arm64",
                     f"CROSS_COMPILE={CROSS}", "LDFLAGS=-static", f"OUTPUT={out}/kvm", headers],
                    log=f"selftests kvm {k.name}")
            run([CROSS + "gcc", "-static", "-O2", "-D_GNU_SOURCE", f"-I{tools}/include", f"-I{tools}/lib",
                 f"-I{tools}/lib/api", "-o", os.path.join(k.out, "page-types"), tools + "/mm/page-types.c",
                 tools + "/lib/api/fs/fs.c", tools + "/lib/api/debug.c"])

    def files(self, root, plain):
        head = self.head(self.program)
        shutil.copy(os.path.join(HARNESS, "field", self.program), root + "/case")
        for name in "functions", *head.get("also", "").split():
            self._add(os.path.join(HARNESS, "field", name), root)
        _compile("tables.c", root + "/tables")
        _compile("kexec.c", root + "/kexec-load")
        self.tools(root)
        for name in "page-types", *head.get("files", "").split():
            shutil.copy(os.path.join(self.k.out, name), root)
        shutil.copytree(os.path.join(self.k.out, "selftests"), root + "/selftests")
        if "module" in head:
            _module(self.k, head["module"], root)
        if "crashkernel" in self.append:
            shutil.move(plain(), root + "/initrd")

    def _add(self, path, root):
        """A file of harness/field, or what is made of it."""
        name, kind = os.path.splitext(os.path.basename(path))
        if kind == ".c":
            _compile(path, os.path.join(root, name))
        elif kind == ".dts":
            run([os.path.join(self.k.out, "scripts/dtc/dtc"), "-q", "-o", os.path.join(root, name + ".dtb"), path])
        else:
            shutil.copy(path, root)


MACHINES = {None: Machine, "workload": Work, "soak": Work, "suspend": Machine, "kexec": Kexec, "hibernate": Hibernate,
            "hotplug": Hotplug, "efi": Efi, "forge": Forge}


def of(program, k, seconds=0):
    """The machine for a program of harness/userland, or for a case of harness/field."""
    return MACHINES.get(program, Case)(program, k, seconds)
