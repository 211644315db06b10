#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Make the ends of guards explicit: CBMC does not know the attribute "cleanup".

    guard(mutex)(&l);                    mutex_lock(&l); ... mutex_unlock(&l);
    scoped_guard(mutex, &l) statement    { mutex_lock(&l); statement mutex_unlock(&l); }
    KPKEYS_SPLIT_RESERVE_ONSTACK(r);     its definition ... kpkeys_split_reserve_return(&r);

The unlocks are put before each "return", "break" and "continue" that leaves the
scope, and at its end. Whatever else releases something by itself is an error. All
lines keep their numbers.
"""
import re
import sys

TOKEN = re.compile(r"""/\*.*?\*/ | //[^\n]* | ^[ \t]*\#(?:[^\n\\]|\\.)* |
                       "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | \w+ | \s+ | .""", re.X | re.S | re.M)
SPIN = ("spin_lock", "spin_unlock")
LOCKS = {"mutex": ("mutex_lock", "mutex_unlock"),
         "spinlock": SPIN, "spinlock_irq": SPIN, "spinlock_irqsave": SPIN}
OTHERS = {"__free", "__cleanup", "CLASS", "scoped_class", "scoped_cond_guard", "ACQUIRE",
          "no_free_ptr", "goto", "switch"}


class Unguard:
    def __init__(self, text):
        self.tokens = TOKEN.findall(text)
        self.at = 0
        self.scopes = []        # of [what ends it, is it a loop]

    def peek(self):
        """The next token that is not space."""
        return next((t for t in self.tokens[self.at:] if not t.isspace()), "")

    def take(self):
        self.at += 1
        return self.tokens[self.at - 1]

    def parens(self):
        """What is between parentheses, which come next."""
        while self.take() != "(":
            pass
        text, depth = "", 1
        while True:
            t = self.take()
            depth += (t == "(") - (t == ")")
            if not depth:
                return text
            text += t

    def until(self, end):
        text, depth = "", 0
        while True:
            t = self.take()
            depth += (t in "([{") - (t in ")]}") if len(t) == 1 else 0
            if t == end and not depth:
                return text
            text += t

    def leave(self, kind):
        """What is released by a jump of this kind."""
        text = ""
        for ends, loop in reversed(self.scopes):
            text += "".join(reversed(ends))
            if loop and kind != "return":
                break
        return text

    def lock(self, name, what):
        if name not in LOCKS:
            sys.exit(f"unguard: what is guard({name})?")
        lock, unlock = LOCKS[name]
        return f"{lock}({what});", f"{unlock}({what}); "

    def block(self, loop=False, ends=None):
        """From "{" to "}"."""
        text = ""
        while (t := self.take()) != "{":
            text += t
        self.scopes.append([ends or [], loop])
        text += "{"
        while self.peek() != "}":
            text += self.statement()
        while (t := self.take()) != "}":
            text += t
        text += "".join(reversed(self.scopes.pop()[0])) + "}"
        return text

    def statement(self):
        """One token outside of functions and in expressions, or what replaces a statement."""
        t = self.take()
        if t in OTHERS:
            sys.exit(f"unguard: '{t}' is not known here")
        if t == "guard":
            name, what = self.parens(), self.parens()
            self.take()
            lock, unlock = self.lock(name, what)
            self.scopes[-1][0].append(unlock)
            return lock
        if t == "KPKEYS_SPLIT_RESERVE_ONSTACK":
            name = self.parens()
            self.take()
            self.scopes[-1][0].append(f"kpkeys_split_reserve_return(&{name}); ")
            return f"struct kpkeys_split_reserve {name} = KPKEYS_SPLIT_RESERVE_INIT({name});"
        if t == "scoped_guard":
            name, what = self.parens().split(",", 1)
            lock, unlock = self.lock(name, what.strip())
            self.scopes.append([[unlock], False])
            body = self.block() if self.peek() == "{" else self.simple()
            return "{ " + lock + body + " " + "".join(self.scopes.pop()[0]) + "}"
        if t in ("for", "while"):
            text = t + "(" + self.parens() + ")"
            return text + (self.block(loop=True) if self.peek() == "{" else "")
        if t == "do":
            return t + (self.block(loop=True) if self.peek() == "{" else "")
        if t in ("return", "break", "continue"):
            value = self.until(";").strip()
            ends = self.leave(t)
            if not ends:
                return f"{t} {value};"
            if not value:
                return "{ " + ends + t + "; }"
            return f"{{ __typeof__({value}) __value = {value}; {ends}{t} __value; }}"
        if t == "{":
            self.at -= 1
            return self.block()
        return t

    def simple(self):
        """A statement without braces."""
        text = ""
        while self.peek() != ";":
            text += self.statement()
            if text.rstrip().endswith(("}", ";")):
                return text
        return text + self.until(";") + ";"

    def all(self):
        text = ""
        while self.at < len(self.tokens):
            text += self.statement()
        return text


if __name__ == "__main__":
    print(Unguard(sys.stdin.read()).all(), end="")
