# SPDX-License-Identifier: GPL-2.0-only
"""Who splits the linear map of arm64, and how many page tables each can take: by the source, and by a count.

The list is made from the source: each call of a function that changes the linear
map, outside of that function's own file. What the range of such a call can be is
known for the callers that are listed here. A new one is shown as not classified.
"""
import os
import re

from common import git, read, write

# Functions that reach split_kernel_leaf_mapping(), and what of the linear map they change at once.
BY_PAGE, RANGE = "one page at a time", "the range"
FUNCTIONS = {
    "set_memory_ro": BY_PAGE, "set_memory_rw": BY_PAGE, "set_memory_rox": BY_PAGE, "set_memory_nx": BY_PAGE,
    "set_memory_x": BY_PAGE, "set_direct_map_invalid_noflush": BY_PAGE, "set_direct_map_default_noflush": BY_PAGE,
    "kfence_protect_page": BY_PAGE,
    "set_direct_map_valid_noflush": RANGE, "set_memory_valid": RANGE, "set_memory_encrypted": RANGE,
    "set_memory_decrypted": RANGE, "set_memory_pkey": RANGE, "debug_pagealloc_map_pages": RANGE,
}
# Not for arm64, or not a caller.
NOT_HERE = ["arch", "tools", "Documentation", "lib/tests", "mm/tests", "drivers/virt/coco/tdx-guest",
            "drivers/virt/coco/sev-guest", "drivers/ptp/ptp_kvm_x86.c", "mm/kasan/kasan_test_c.c", "include"]
# What a caller that passes a range can take, and who that is: (files, most tables, range, when).
CALLERS = [
    ("kernel/dma/swiotlb.c|kernel/dma/pool.c|kernel/dma/direct.c|kernel/dma/contiguous.c", 4,
     "bounce buffers and coherent memory: any number of pages", "realms only"),
    ("drivers/dma-buf/", 4, "a buffer: up to 2 MB at a time", "realms only"),
    ("drivers/hv/|drivers/net/hyperv/", 4, "ring buffers: some pages to megabytes", "confidential guests of Hyper-V only"),
    ("drivers/irqchip/irq-gic-v3-its.c", 2, "naturally aligned tables", "realms only"),
    ("mm/execmem.c", 2, "aligned blocks of 2 MB", "not on arm64 yet: no ROX cache"),
    ("mm/vmalloc.c", 4, "the pages of an area that are in one run", "never in the base: mapped by pages"),
    ("mm/page_alloc.c|mm/memory_hotplug.c|kernel/power/|mm/slab|mm/kasan|mm/kfence", 0, "pages", "PTE-mapped by then: debug_pagealloc and KFENCE"),
    ("mm/kpkeys", 2, "an aligned chunk of the cache, or one table", "this series"),
    ("arch/arm64/mm/kpkeys", 4, "page tables in the kernel image, 1 range", "this series, at boot"),
    ("arch/arm64/mm/mmu.c", 4, "the linear alias of data and bss", "hibernation"),
    ("arch/arm64/include/asm/kfence.h", 0, "one page", "PTE-mapped by then: KFENCE"),
    ("arch/arm64/mm/pageattr.c", 0, "as its caller", "the implementation"),
]


def _calls(name):
    """(file, line) of each call in the source that arm64 has."""
    paths = ["*.c", "arch/arm64/include/asm/kfence.h", *(f":!{p}" for p in NOT_HERE)]
    found = git("grep", "-nE", rf"\b{name}\b[(,)]", "origin/base", "--", *paths, check=False)
    found += git("grep", "-nE", rf"\b{name}\b[(,)]", "origin/base", "--", "arch/arm64/*.[ch]", check=False)
    for line in found.splitlines():
        m = re.match(r"[^:]+:([^:]+):(\d+):(.*)", line)
        # Neither a definition or declaration, which begins the line, nor a comment.
        if m and m[3][:1] in "\t " and not re.match(r"\s*(\*|/\*)", m[3]):
            yield m[1], int(m[2])


def callers():
    """[(most tables of one step, what it does, when, [file: calls])], the most first."""
    rows = {}
    for name, what in FUNCTIONS.items():
        for path, _ in _calls(name):
            if what == BY_PAGE:
                key = (2, "permissions of modules, BPF, kprobes, secretmem, snapshots: one page at a time", "always")
            else:
                key = next((row[1:] for row in CALLERS if re.match(row[0], path)), (4, "not classified", "see the source"))
            files = rows.setdefault(key, {})
            files[path] = files.get(path, 0) + 1
    return [(*key, files) for key, files in sorted(rows.items(), key=lambda item: (-item[0][0], item[0][1]))]


SAYS = "kpkeys: a split takes "


def count_splits(linux):
    """Let a kernel say of each split how many page tables it takes."""
    path = os.path.join(linux, "arch/arm64/mm/mmu.c")
    text = read(path)
    before = text
    text = text.replace("\treturn fill_and_split_range(start, end, nr);",
                        f'\tpr_info("{SAYS}%d\\n", nr);\n\treturn fill_and_split_range(start, end, nr);')
    write(path, text)
    return text != before


def counted(console):
    """{page tables: splits}, of callers other than the cache, before the suites split what nobody else would."""
    result = {}
    for n in re.findall(re.escape(SAYS) + r"(\d+)", console.partition("# Subtest: ")[0]):
        result[n] = result.get(n, 0) + 1
    return result
