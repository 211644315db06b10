# SPDX-License-Identifier: GPL-2.0-only
"""Put what many patches change into one source file, each behind a switch.

A function that a patch changes is there twice: as it is, and as the patch makes it,
which is called if the switch has the number of the patch. A macro that is an
expression becomes a conditional one. Nothing is understood of C but where functions
and macros of kernel style begin and end: what is not told apart by that is refused.
"""
import difflib
import re

# In the read-only data of the kernel; who boots it writes a number there. It is 0 in the image. Exported, as modules
# inline functions of headers.
SWITCH = "kpkeys_sabotage"
DECLARE = f"extern const volatile unsigned int {SWITCH};\n"
DEFINE = f"\n{DECLARE}const volatile unsigned int {SWITCH};\nEXPORT_SYMBOL({SWITCH});\n"


class Refused(Exception):
    """What cannot be put behind a switch, for the reason given."""


class Item:
    """A part of a source file: a function, a macro, or what is between these (without a name)."""

    def __init__(self, name, text, head=""):
        self.name, self.text, self.head = name, text, head


def items(text):
    """The functions, the macros, and the lines between."""
    found, between, lines = [], [], text.splitlines(keepends=True)

    def add(item):
        if between:
            found.append(Item("", "".join(between)))
            between.clear()
        found.append(item)

    n = 0
    while n < len(lines):
        start = n
        if lines[n].startswith("#define"):
            while lines[n].endswith("\\\n"):
                n += 1
            add(Item(re.match(r"#define\s+(\w+)", lines[start])[1] + " (macro)", "".join(lines[start:n + 1])))
        elif lines[n] == "{\n":
            while n < len(lines) - 1 and not lines[n].startswith("}"):
                n += 1
            head = []
            while between and not re.search(r"^$|^[#}]|[;}\\/]$", between[-1].rstrip("\n")):
                head.insert(0, between.pop())
            head = "".join(head)
            name = re.search(r"(\w+)\(", head)
            add(Item(f"{name[1]}()" if name else "", head + "".join(lines[start:n + 1]), head))
        else:
            between.append(lines[n])
        n += 1
    if between:
        found.append(Item("", "".join(between)))
    return found


def _named(found):
    """By name and how many of that name came before: the branches of an #ifdef have the same."""
    seen, named = {}, {}
    for item in found:
        if item.name:
            seen[item.name] = seen.get(item.name, 0) + 1
            named[item.name, seen[item.name]] = item
    return named


def difference(before, after):
    """What is to be put behind a switch, ({key: the item as the patch has it}, text that is only added)."""
    old, new = items(before), items(after)
    was, is_ = _named(old), _named(new)
    if set(was) - set(is_):
        raise Refused(f"takes away {sorted(set(was) - set(is_))[0][0]}")
    lines = [[line for i in found if not i.name for line in i.text.splitlines(keepends=True)] for found in (old, new)]
    added = []
    for how, _, _, first, last in difflib.SequenceMatcher(None, *lines, autojunk=False).get_opcodes():
        if how in ("replace", "delete"):
            raise Refused("changes what is no function and no macro")
        if how == "insert":
            added += lines[1][first:last]
    added += [item.text for key, item in is_.items() if key not in was]
    changed = {key: item for key, item in is_.items() if key in was and item.text != was[key].text}
    for key, item in changed.items():
        if item.head != was[key].head:
            raise Refused(f"changes the arguments of {key[0]}")
        (_arguments if item.head else _macro)(item)             # refuses what they cannot take apart
    return changed, "".join(added)


def _macro(item):
    """Name with arguments, and the expression that it is."""
    m = re.match(r"#define\s+(\w+(?:\([^)]*\))?)\s+(.*)", item.text.replace("\\\n", "\n"), re.S)
    if not m or re.match(r"\s*(do|if|for|while|\{)\b", m[2]) or ";" in m[2]:
        raise Refused(f"{item.name} is not an expression")
    return m[1], m[2].strip()


def _arguments(item):
    """The names of the arguments of a function."""
    inside = re.search(r"\w+\((.*)\)\s*\Z", item.head, re.S)
    if not inside or "..." in inside[1] or re.search(r"\b[A-Z_0-9]+\(", item.head):
        raise Refused(f"the arguments of {item.name} are not known")
    if inside[1].strip() == "void":
        return []
    depth, parts = 0, [""]
    for c in inside[1]:
        depth += (c == "(") - (c == ")")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    names = [re.search(r"\(\*\s*(\w+)\)|(\w+)\s*(?:\[\w*\])?\s*\Z", part) for part in parts]
    if not all(names):
        raise Refused(f"the arguments of {item.name} are not known")
    return [m[1] or m[2] for m in names]


def _copy(item, key, number, condition, apart):
    """A function as a patch has it, under another name, and the lines that call it; @apart: it is not inlined."""
    name = key[0][:-2]
    other = f"{name}__{number}"
    head = re.sub(rf"\b{name}\(", f"{other}(", item.head, count=1)
    head = re.sub(r"\b(extern|asmlinkage|__visible)\s+", "", head)
    if not re.search(r"\bstatic\b", head):
        head = "static " + head
    if apart:
        head = "noinline " + re.sub(r"\b(inline|__always_inline)\s+", "", head)
    if re.search(rf"\b{name}\(", item.text[len(item.head):]):      # calls itself, which is declared later
        head = item.head.rstrip() + ";\n" + head
    call = f"{other}({', '.join(_arguments(item))})"
    void = re.search(r"\bvoid\s+" + name + r"\(", re.sub(r"\b(noinline|notrace|__\w+)\s+(?=.*\()", "", item.head))
    return head + item.text[len(item.head):] + "\n", \
        f"\tif ({condition})\n" + (f"\t\t{{ {call}; return; }}\n" if void else f"\t\treturn {call};\n")


def _condition(number, only):
    """The switch has this number; and if @only names files, one of these is compiled."""
    names = [re.sub(r"[^\w]", "_", path.rpartition("/")[2].removesuffix(".c")) for path in only]
    files = " || ".join(f'!__builtin_strcmp(KBUILD_BASENAME, "{name}")' for name in names)
    return (f"({files}) && " if files else "") + f"{SWITCH} == {number}"


def guarded(before, patches, apart=False):
    """The file @before with all that the @patches make of it: (number, files that are to see it, difference()).
    @apart: they are so many that inlined into each other they would be too large."""
    text, declared, added = "", False, set()
    for key, item in _keyed(before):
        mine = [(number, only, changed[key], more) for number, only, (changed, more) in patches if key in changed]
        if mine and not declared:
            text, declared = text + DECLARE, True
        copies, calls, expression = "", "", None
        for number, only, new, more in mine:
            if number not in added:
                copies, added = copies + more, added | {number}
            if item.head:
                copy, call = _copy(new, key, number, _condition(number, only), apart)
                copies, calls = copies + copy, calls + call
            else:
                head, old = _macro(item)
                expression = f"(({_condition(number, only)}) ? ({_macro(new)[1]}) : ({expression or old}))"
        if expression:
            text += copies + f"#define {head} {expression}".replace("\n", "\\\n") + "\n"
        else:
            text += copies + item.head + item.text[len(item.head):].replace("{\n", "{\n" + calls, 1) \
                if item.head else item.text
    return text


def _keyed(text):
    """items(), each with its key or None."""
    found = items(text)
    keys = {id(item): key for key, item in _named(found).items()}
    return [(keys.get(id(item)), item) for item in found]
