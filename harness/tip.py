# SPDX-License-Identifier: GPL-2.0-only
"""What is looked at once, with all patches applied: by other compilers and by the kernel's static checkers."""
import glob
import os
import re
import shutil

import kernel
import perpatch
from common import LINUX, log_path, read, run, step
from perpatch import TREE, WORK, Build


def _whole(o, series):
    """The whole kernel, by each compiler and architecture."""
    for b in series.more:
        with step(f"whole: {b.what}"):
            o.check(f"whole: {b.what}", series.new(b, ["all"]))
    if os.uname().machine != "x86_64":
        o.skipped.append(("x86_64", "this is not an x86_64 machine, and there is no cross compiler for it here"))


def _code(series):
    """Each source file that a patch touches."""
    return sorted({p for c in series.commits for p in perpatch.touched(c)[0] if p.endswith(".c")})


def _checked(o, series, what, paths, *args):
    """One of the checkers that make runs beside the compiler, on these files."""
    on = series.always[0]
    b = Build(what, on.arch, on.config)
    with step(what):
        # What make compiles before anything else is not to be checked.
        b.messages(["prepare"])
        b.args += ["C=1", *args]
        o.check(what, series.new(b, b.objects([p for p in paths if not re.match(r"arch/(?!arm64/)", p)])))


def _context_analysis(o, series):
    """clang's analysis of which locks are held, on the new files, if there is a clang that can."""
    b = next(b for b in series.more if b.clang)
    with open(os.path.join(b.out, ".config")) as f:
        if "CONFIG_WARN_CONTEXT_ANALYSIS=y" not in f.read():
            with open(os.path.join(TREE, "lib/Kconfig.debug")) as f:
                needs = re.search(r"config WARN_CONTEXT_ANALYSIS\n(?:.*\n)*?.*CLANG_VERSION >= (\d+)", f.read())
            has = re.search(r"version (\S+)", run(["clang", "--version"]))[1]
            o.skipped.append(("context analysis", f"needs clang {int(needs[1]) // 10000}; here is {has}"))
            return
    deep = Build("arm64 clang context analysis", config=b.config, clang=True)
    deep.args += ["CONTEXT_ANALYSIS=y"]
    with step("context analysis"):
        o.check("context analysis", series.new(deep, deep.objects([p for p in series.own if p.endswith(".c")])))


def _includes(o, series):
    new = [p for p in series.own if p.endswith((".c", ".h"))]
    out = run(["scripts/checkincludes.pl", *new], cwd=TREE, check=False, log="check includes")
    bad = [line for line in out.splitlines() if line and line != "No duplicate includes found."]
    o.check("no file is included twice", "; ".join(bad[:3]) or None)


def _torn(html):
    """The rows of tables in which a cell is empty."""
    for row in re.findall(r"<tr.*?</tr>", html, re.S):
        cells = [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)]
        if "" in cells:
            yield " | ".join(cells)


def _html(o, series):
    """The pages of the series, in the folders that they belong to, as html.

    Made in build/linux, which has all patches, too: the work tree has no documentation.
    """
    pages = [p for p in series.own if p.endswith(".rst")]
    folders = sorted({p.split("/")[1] for p in pages})
    out = os.path.join(WORK, "html")
    # About pages that an earlier run has made, sphinx says nothing; and if it fails, they would be taken for new ones.
    shutil.rmtree(out, ignore_errors=True)
    with step("htmldocs of " + " ".join(folders)):
        said = run(["make", "-C", LINUX, f"O={out}", "ARCH=arm64", f"SPHINXDIRS={' '.join(folders)}", "htmldocs"],
                   check=False, log="htmldocs")
    for page in pages:
        # What the page is made of: itself, and the comments in the sources that it names.
        parts = [page, *re.findall(r"^\.\. kernel-doc:: (\S+)", read(os.path.join(LINUX, page)), re.M)]
        bad = [line for line in said.splitlines() if re.search(r"WARNING|ERROR|Warning|Error", line) and
               any(p in line for p in parts)]
        html = os.path.basename(page)[:-len("rst")] + "html"
        found = glob.glob(f"{out}/**/{html}", recursive=True)
        if not found:
            bad.append(f"there is no {html}; log: {log_path('htmldocs')}")
        # What a simple table makes of the second line of a first column.
        bad += [f"a table with an empty cell, in the row '{row}'" for path in found for row in _torn(read(path))]
        o.check(f"htmldocs {page}", "; ".join(bad[:3]) or None)


def check(series):
    """@series: what perpatch.each() has walked over; its work tree has all patches."""
    o = kernel.Outcome("the tip")
    _whole(o, series)
    _context_analysis(o, series)
    _checked(o, series, "arm64 sparse", _code(series))
    _checked(o, series, "arm64 coccicheck", [p for p in series.own if p.endswith(".c")],
             f"CHECK={TREE}/scripts/coccicheck", "MODE=report",
             # What spatch says of the scripts themselves.
             f"DEBUG_FILE={log_path('coccicheck debug')}")
    _includes(o, series)
    _html(o, series)
    return o
