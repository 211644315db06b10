# SPDX-License-Identifier: GPL-2.0-only
"""The mail-ready series: git format-patch, and b4 to see that it applies."""
import os
import re
import shutil

import tree
from common import BUILD, Fail, LINUX, TOP, git, run

OUT = os.path.join(BUILD, "series")


def identity():
    name, email = os.environ.get("GIT_IDENT_NAME"), os.environ.get("GIT_IDENT_EMAIL")
    if not name or not email:
        raise Fail("the series is signed by you, and git knows no identity: "
                   "git config --global user.name '...', user.email '...'")
    return name, email


def make(stack, version="1", who=None):
    """Write the series as files and as an mbox; returns the path of the mbox."""
    name, email = who or identity()
    if not re.fullmatch(r"[1-9]\d*", version):
        raise Fail(f"VERSION={version} is not a number")
    patches = tree.stack(stack)
    out = os.path.join(OUT, f"{stack}-v{version}")
    work = os.path.join(BUILD, "series-tree")
    ident = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
             for what, value in (("NAME", name), ("EMAIL", email))}

    # The commits once more, with the user as the author.
    base = git("rev-parse", "origin/base").strip()
    commit, signed = base, f"Signed-off-by: {name} <{email}>"
    for p, old in zip(patches, git("rev-list", "--reverse", f"{base}..{tree.assemble(stack)}").split()):
        commit = git("commit-tree", old + "^{tree}", "-p", commit, env=ident,
                     stdin=f"{p.message()}\n{signed}\n").strip()
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    with open(os.path.join(TOP, "series/cover-letter")) as f:
        subject, _, body = f.read().partition("\n")
    git("format-patch", "-q", "--cover-letter", "--thread=shallow", f"--base={base}", f"-v{version}",
        "-o", out, f"{base}..{commit}", env=ident)
    cover, = [os.path.join(out, n) for n in os.listdir(out) if "-0000-cover-letter" in n]
    with open(cover) as f:
        text = f.read()
    text = text.replace("*** SUBJECT HERE ***", subject.removeprefix("Subject: "))
    text = text.replace("*** BLURB HERE ***", body.strip())
    with open(cover, "w") as f:
        f.write(text)
    mbox = out + ".mbox"
    with open(mbox, "w") as m:
        for n in sorted(os.listdir(out)):
            with open(os.path.join(out, n)) as f:
                m.write(f.read() + "\n")
    return mbox


def applies(stack, mbox):
    """None if b4 makes of the mbox what applies to the base and gives our tree."""
    with open(mbox) as f:
        msgid = re.search(r"^Message-ID: <(.+)>$", f.read(), re.M | re.I)[1]
    work = os.path.join(BUILD, "b4")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    env = {"HOME": work, "GIT_CONFIG_COUNT": "0"}
    out = run(["b4", "--offline-mode", "am", "-m", mbox, "-o", work, msgid], cwd=LINUX, env=env, log="b4", check=False)
    mbx = [n for n in os.listdir(work) if n.endswith(".mbx")]
    if not mbx:
        return f"b4 am: {out.strip().splitlines()[-1]}"
    copy = os.path.join(work, "linux")
    git("worktree", "prune")
    git("worktree", "add", "-q", "--detach", copy, "origin/base")
    try:
        git("am", "-q", os.path.join(work, mbx[0]), cwd=copy, env=dict(
            env, GIT_COMMITTER_NAME="b4", GIT_COMMITTER_EMAIL="b4@localhost"), log="b4")
        same = git("rev-parse", "HEAD^{tree}", cwd=copy) == git("rev-parse", tree.assemble(stack) + "^{tree}")
        return None if same else "git am of the series gives another tree"
    except Fail as e:
        return str(e)
    finally:
        git("worktree", "remove", "--force", copy)
