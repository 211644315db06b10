# SPDX-License-Identifier: GPL-2.0-only
"""The verdict: a table for people, build/results/NAME.json for programs."""
from common import save_result, table


def verdict(name, outcomes):
    """Print what the @outcomes came to; returns whether nothing failed."""
    total = [sum(len(getattr(o, k)) for o in outcomes) for k in ("passed", "failed", "skipped")]
    ok = total[0] > 0 and total[1] == 0
    save_result(name, {"ok": ok, "passed": total[0], "failed": total[1], "skipped": total[2],
                       "outcomes": [vars(o) for o in outcomes]})

    print()
    table(["what", "verdict", "passed", "failed", "skipped", "remarks"],
          [[o.what, "FAIL" if o.failed else "pass" if o.passed else "skip",
            len(o.passed), len(o.failed), len(o.skipped), o.note] for o in outcomes])
    print()
    for o in outcomes:
        # Many tests are skipped for one reason.
        for why in sorted({why for _, why in o.skipped}):
            names = [n for n, w in o.skipped if w == why]
            print(f"skipped: {o.what}: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}")
    for o in outcomes:
        for what, why in o.failed:
            print(f"FAILED: {o.what}: {what}: {why}")
    print("%d passed, %d failed, %d skipped" % tuple(total), flush=True)
    return ok
