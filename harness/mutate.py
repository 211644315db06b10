# SPDX-License-Identifier: GPL-2.0-only
"""Mutants of C by rule: each is one small change of one function or macro of kernel style.

Only what code does is changed: no comment, no message, no assertion, as these change nothing
while all else is right.
"""
import difflib
import re
import zlib

import guard

ORDER = r"(smp_\w*mb|\bmb|barrier|isb|dsb|flush|guard|lock|READ_ONCE|WRITE_ONCE|lazy_mmu)"
SAYS = r"\w*(pr_(err|warn|info|debug)\w*|WARN\w*|BUILD_BUG\w*|BUG\w*|trace_\w+|lockdep_assert\w*|assert_\w+" \
       r"|KUNIT_STATIC_STUB_REDIRECT|instrumentation_\w+|seq_p\w+|kpkeys_assert\w+)\("
NAME = r"[A-Z_][A-Z0-9_]{2,}"
OTHER = {"KPKEYS_PKEY_PGTABLES": "KPKEYS_PKEY_DEFAULT", "KPKEYS_PKEY_DEFAULT": "KPKEYS_PKEY_PGTABLES",
         "KPKEYS_CTX_PGTABLES": "KPKEYS_CTX_DEFAULT", "KPKEYS_CTX_DEFAULT": "KPKEYS_CTX_PGTABLES",
         "true": "false", "false": "true", "GFP_KERNEL": "GFP_NOWAIT", "PMD_SIZE": "PUD_SIZE"}
# What a match becomes.
SIMPLE = [
    ("negate a condition", r"(?<!\w) (==|!=) ", lambda m: {"==": " != ", "!=": " == "}[m[1]]),
    ("and, or", r" (&&|\|\|)(?=\s)", lambda m: {"&&": " ||", "||": " &&"}[m[1]]),
    ("drop a condition", r"(?:(?<=\()|(?<=return ))[^()&|;{}]*(?:\([^()]*\))?[^()&|;{}]*(?:&&|\|\|)\s+", lambda m: ""),
    ("drop a flag", rf"\s\| ({NAME})\b", lambda m: ""),
    ("drop a flag", rf"(?<!\| )\b{NAME} \| ", lambda m: ""),
    ("drop a flag", r"\s& ~\(?\w+\)?(?!\w*\()", lambda m: ""),
    ("off by one", r" (<|>|<=|>=) ", lambda m: " " + {"<": "<=", ">": ">=", "<=": "<", ">=": ">"}[m[1]] + " "),
    ("off by one", r" [+-] 1\b", lambda m: ""),
    ("off by one", r"(?<=[=(,] )0(?=;)", lambda m: "1"),
    ("wrong error", r"return -E\w+;", lambda m: "return 0;"),
    ("wrong error", r"return (ret|err);", lambda m: "return 0;"),
    ("wrong error", r"-(ENOMEM|EPERM|EBUSY|EAGAIN)\b(?!;)", lambda m: "-EINVAL"),
    ("other constant", rf"\b({'|'.join(OTHER)})\b", lambda m: OTHER[m[1]]),
    ("other constant", r"(?<![\w.])([2-9]|[1-9]\d+)(?![\w.])", lambda m: str(int(m[1]) + 1)),
]


class Mutant:
    """One change: @before and @after are the texts of the whole file."""
    own, only = None, ()

    def __init__(self, path, item, rule, before, at, change, seen):
        """@at: where the @item is in the text @before; @change: (start, end, new text) in the item."""
        start, end, new = change
        self.path, self.files, self.function, self.rule = path, [path], item.name, rule
        self.line = before.count("\n", 0, at + start) + 1
        self.after = before[:at + start] + new + before[at + end:]
        after = item.text[:start] + new + item.text[end:]
        diff = list(difflib.unified_diff(item.text.splitlines(), after.splitlines(), n=2, lineterm=""))[2:]
        self.diff = "\n".join([f"@@ line {self.line}, {item.name}", *(d for d in diff if not d.startswith("@@"))])
        self.change = "\n".join(d for d in diff if d[0] in "+-")
        # A number and a name that other mutants, and other lines of the file, do not change.
        n = seen[self.change, self.function] = seen.get((self.change, self.function), 0) + 1
        self.number = zlib.crc32(f"{self.path} {self.function} {self.rule} {self.change} {n}".encode()) & 0x7fffffff
        self.name = f"{self.number:08x}"
        self.text = self.diff


def blank(text):
    """Without comments and strings, which are blank then."""
    def blank(m):
        return re.sub(r"[^\n]", " ", m[0])
    return re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|//[^\n]*', blank, text, flags=re.S)


def _parenthesis(text, at):
    """Where the one that opens at @at is closed."""
    depth = 0
    for n in range(at, len(text)):
        depth += (text[n] == "(") - (text[n] == ")")
        if not depth:
            return n
    return len(text) - 1


def _statements(body):
    """(start, end) of each that is no declaration, and says nothing."""
    for m in re.finditer(r"^\t+([^\s{}#][^;{}]*;)", body, re.M):
        before = body[:m.start()].rstrip()
        if not (before[-1:] in ";{}:)" or before.endswith("else")) or re.match(r"\w+:", m[1]):
            continue
        if re.match(r"(\w+\s+)+\**\w+\s*[=;,\[(]|(return|goto|if|for|while|do|else|case|asm)\b", m[1]) or \
                re.match(SAYS, m[1]):
            continue
        yield m.start(1), m.end(1)


def _changes(item):
    """(rule, start, end, new text) of an item."""
    text = blank(item.text)
    first = len(item.head) + 2 if item.head else len(re.match(r"#define\s+\w+(\([^)]*\))?", text)[0])
    # Lines that only say something.
    says = [(m.start(), _parenthesis(text, m.end() - 1)) for m in re.finditer(r"\b" + SAYS, text)
            if text[:m.start()].endswith("\t")]

    def silent(at):
        return at >= first and not any(start <= at <= end for start, end in says)

    for rule, expression, new in SIMPLE:
        for m in re.finditer(expression, text):
            if silent(m.start()):
                yield rule, m.start(), m.end(), new(m)
    if not item.head:
        return
    for m in re.finditer(r"\bif \(", text):
        at = m.start() + 3
        end = _parenthesis(text, at)
        yield "negate a condition", at, end + 1, f"(!{item.text[at:end + 1]})"
        yield "drop a guard", at, end + 1, "(0)"
    body = first
    found = list(_statements(text))
    for start, end in found:
        if start >= body:
            rule = "drop a barrier, flush or guard" if re.search(ORDER, text[start:end]) else "drop a statement"
            yield rule, start, end, ";"
    for (s1, e1), (s2, e2) in zip(found, found[1:]):
        if re.fullmatch(r"\n+\t+", item.text[e1:s2]) and text[s1:e1] != text[s2:e2]:
            yield "swap order", s1, e2, item.text[s2:e2] + item.text[e1:s2] + item.text[s1:e1]
    kind = re.search(r"\b(void|bool)(\s+(__\w+|noinline|notrace|noinstr))*\s+\w+\(", item.head)
    if kind and kind[1] == "void":
        yield "return early", body, body, "\treturn;\n"
    elif kind:
        for value in "true", "false":
            yield "return early", body, body, f"\treturn {value};\n"
    else:
        yield "return early", body, body, "\treturn 0;\n"


def _without(text):
    """The lines for kernels without an option, which nobody compiles here."""
    found, stack = set(), []
    for n, line in enumerate(text.splitlines(), 1):
        if re.match(r"#\s*if", line):
            stack.append(["CONFIG_" in line and not re.match(r"#\s*ifndef", line), False])
        elif re.match(r"#\s*else", line) and stack:
            stack[-1][1] = stack[-1][0]
        elif re.match(r"#\s*endif", line) and stack:
            stack.pop()
        if any(off for _, off in stack):
            found.add(n)
    return found


def _balanced(text):
    return all(text.count(a) == text.count(b) for a, b in ("()", "{}"))


def mutants(path, text, lines):
    """All mutants of the @lines (a set of numbers, from 1) of a file."""
    lines = lines - _without(text)
    found, at, seen, known, first = [], 0, {}, set(), 1
    for item in guard.items(text):
        mine = lines & set(range(first, first + item.text.count("\n")))
        for rule, start, end, new in _changes(item) if mine and item.name.endswith(("()", "(macro)")) else ():
            line = first + item.text.count("\n", 0, start)
            touched = set(range(line, line + item.text.count("\n", start, end) + 1))
            changed = item.text[:start] + new + item.text[end:]
            if (touched & mine or rule == "return early" and line - 1 in mine) and changed != item.text and \
                    changed not in known and _balanced(changed):
                known.add(changed)
                found.append(Mutant(path, item, rule, text, at, (start, end, new), seen))
        at, first = at + len(item.text), first + item.text.count("\n")
    return found


def some(found, most):
    """At most so many of these, always the same ones: as many of each rule, as far as there are."""
    by_rule, chosen = {}, []
    for m in sorted(found, key=lambda m: m.name):
        by_rule.setdefault(m.rule, []).append(m)
    while len(chosen) < most and any(by_rule.values()):
        for rule in sorted(by_rule):
            if by_rule[rule] and len(chosen) < most:
                chosen.append(by_rule[rule].pop(0))
    return sorted(chosen, key=lambda m: (m.line, m.name))
