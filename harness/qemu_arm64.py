# SPDX-License-Identifier: GPL-2.0-only
"""The machine, for kunit.py --qemu_config and for make boot.

MAP=block gives the CPU the identity of one with BBM level 3, with which the
kernel makes its direct map of blocks and splits them live; otherwise it is made
of pages.
"""
import os

try:
    from ..qemu_config import QemuArchParams        # loaded by kunit.py
except ImportError:
    from collections import namedtuple
    QemuArchParams = namedtuple("QemuArchParams", "linux_arch kconfig qemu_arch kernel_path "
                                "kernel_command_line extra_qemu_params")


def machine(map_):
    cpu = "max" + (",midr=0x410fd8e0" if map_ == "block" else "")
    return QemuArchParams(
        linux_arch="arm64", kconfig="", qemu_arch="aarch64",
        kernel_path="arch/arm64/boot/Image",
        # Without panic=-1 a kernel that panics would never end.
        kernel_command_line="console=ttyAMA0 earlycon panic=-1",
        extra_qemu_params=["-machine", "virt,gic-version=3", "-cpu", cpu, "-smp", "4"])


QEMU_ARCH = machine(os.environ.get("MAP"))
