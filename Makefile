# SPDX-License-Identifier: GPL-2.0-only
# The front door: each target is one line of "make help". All work is done in
# the toolchain root, see harness/.
.DEFAULT_GOAL := help
HARNESS := @$(dir $(lastword $(MAKEFILE_LIST)))harness/enter python3 harness/main.py

.PHONY: help demo test test-the-tests mutants tree refresh series release check rebase-check kunit boot workload soak field faults coverage proofs fuzz matrix shell bench pressure compare clean
help: ## this list
	@awk -F ':.*## ' 'BEGIN { print "make TARGET [V=1]" } /^[a-z-]+:.*## / { \
		printf "  %-15s", $$1; c = 17; n = split($$2, words, " "); \
		for (i = 1; i <= n; i++) { \
			if (c + length(words[i]) > 78) { printf "\n%17s", ""; c = 17 } \
			printf " %s", words[i]; c += length(words[i]) + 1 } \
		print "" }' $(firstword $(MAKEFILE_LIST))
	@echo "values, the first if it is not set:"
	@echo "  ARCH=arm64|um  MAP=pte|block  MODE=enforce|check|off  PAGES=4k|16k|64k"
	@echo "  STACK=split-reserve|reserve|gfp-flag|gfp-flag-2-4"
	@echo "for what boots a kernel:"
	@echo "  APPEND=\"more of the command line\"  TIMEOUT=seconds  SUITE=glob"
	@echo "  QEMU=/path/to/qemu-system-aarch64"

demo: ## from nothing to a protected kernel: tools, base, tree, build, KUnit, boot, verdict
	$(HARNESS) demo

test: ## everything that CI runs; the last line has the numbers (MINUTES=n: start nothing new after that, and count it as skipped)
	$(HARNESS) test

test-the-tests: ## every sabotage patch (SABOTAGE=name for one) must turn its test red
	$(HARNESS) test-the-tests

coverage: ## lines and branches of the new files of the series: which of them nothing reaches
	$(HARNESS) coverage

mutants: ## faults made by rule from the code of the series: which of them no test notices (MUTANT="name or file ..." for some); goes on where it was
	$(HARNESS) mutants

tree: ## series/ and the new files -> build/linux, one commit a patch (FORCE=1 puts aside what you did there)
	$(HARNESS) tree

refresh: ## the commits of build/linux -> series/ and the new files
	$(HARNESS) refresh

series: ## mail-ready patches and an mbox in build/series, signed by your git identity (V=n, RFC=1, FIRST=n LAST=n; SINCE=revision of v(n-1))
	@VERSION="$(or $(VERSION),$(V))" V= $(patsubst @%,%,$(HARNESS)) series

release: ## release/: version n as mboxes that "git am" and "b4 am -m" take (V=n; RFC=0 when it is no RFC any more)
	@VERSION="$(or $(VERSION),$(V))" V= $(patsubst @%,%,$(HARNESS)) release

check: ## each patch by itself: builds, warnings, style, kernel-doc, sparse, coccinelle; mail, b4 (PATCH="1 7-9 tip" for some of it)
	$(HARNESS) check

rebase-check: ## does the series apply to the other kernel versions that Debian serves
	$(HARNESS) rebase-check

kunit: ## KUnit (ARCH, MAP, MODE, PAGES, SUITE=glob)
	$(HARNESS) kunit

boot: ## boot one kernel with a small userland and check it (MAP, MODE, PAGES)
	$(HARNESS) boot

workload: ## stress-ng, the mm selftests and test_vmalloc on one kernel (MAP, MODE, PAGES, SECONDS_EACH=n)
	$(HARNESS) workload

soak: ## work, CPU hotplug, failing allocations and shrinkers, again and again, with a look at all tables each time (MAP, MODE, PAGES, HOURS=h)
	$(HARNESS) soak

faults: ## each change of a pkey and each allocation of a table during boot fails once
	$(HARNESS) faults

proofs: ## the cache and the reserve in user space: sanitizers, fuzzer, model checkers (build/results/proofs.json)
	$(HARNESS) proofs

fuzz: ## a long run of the fuzzer (SECONDS=n, an hour if not set); the corpus keeps what it finds
	@FUZZ_SECONDS="$(SECONDS)" $(patsubst @%,%,$(HARNESS)) fuzz

field: ## what other people ran into, and their tools, beside the same without protection (CASE="01 ..." for some); with SABOTAGE=name|all what breaks the kernel there, and must be noticed
	$(HARNESS) field

matrix: ## suites, boots and the workload on all configurations of harness/matrix (CELL="name ..." for some); goes on where it was
	$(HARNESS) matrix

shell: ## the same kernel with a shell on the console (leave by Ctrl-A X)
	$(HARNESS) shell

bench: ## instructions per operation, exact: the base, the reserve, the series (build/results/bench.json)
	$(HARNESS) bench

pressure: ## scarce and fragmented memory, many tables that go, nodes: the series beside the same kernel with the feature off
	$(HARNESS) pressure

compare: ## the series beside the GFP-flag design: suites, costs, code (compare/REPORT.md); goes on where it was (AGAIN=1 measures all once more; V6=/path/to/kpkeys_hardened_pgtables.c: one more column)
	$(HARNESS) compare

clean: ## remove build/, except an edited build/linux
	$(HARNESS) clean
