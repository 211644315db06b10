// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of a kernel that "make bench" boots: runs all that is
 * measured, once, and says what and how many operations each was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB		(1024UL * 1024)
#define SIZE		(64 * MB)
#define ROUNDS		5
#define SWITCHES	2000
#define SPARSE_STEPS	8
#define VMAS		1000
#define EXECS		20

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define mark_begin()	asm volatile("hint #112" : : : "memory")
#define mark_end()	asm volatile("hint #113" : : : "memory")
#define mark_report()	asm volatile("hint #114" : : : "memory")

static long page;

static void must(int ok, const char *what)
{
	if (!ok) {
		printf("bench: error %s: %s\n", what, strerror(errno));
		reboot(LINUX_REBOOT_CMD_POWER_OFF);
	}
}

static void *map(int advice)
{
	void *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED, "mmap");
	must(!madvise(p, SIZE, advice), "madvise");
	return p;
}

static void touch(char *p)
{
	unsigned long i;

	for (i = 0; i < SIZE; i += page)
		p[i] = 1;
}

/* What was freed by RCU before is freed, or it would be counted in some runs and not in others. */
static void settle(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/sys/kernel/debug/pgtable_bench", O_RDWR);
	must(write(fd, "settle", 6) == 6, "settle");
}

static long bench_fork(int advice)
{
	char *p = map(advice);
	int i;

	touch(p);
	for (i = 0; i < ROUNDS + 1; i++) {
		pid_t pid;

		settle();
		if (i)
			mark_begin();
		pid = fork();
		must(pid >= 0, "fork");
		if (!pid)
			_exit(0);
		must(waitpid(pid, NULL, 0) == pid, "waitpid");
		if (i)
			mark_end();
		touch(p);
	}
	munmap(p, SIZE);
	return ROUNDS;
}

static long bench_munmap(int advice)
{
	int i;

	for (i = 0; i < ROUNDS; i++) {
		char *p = map(advice);

		touch(p);
		settle();
		mark_begin();
		munmap(p, SIZE);
		mark_end();
	}
	return ROUNDS;
}

static long bench_mprotect(int advice)
{
	char *p = map(advice);
	int i;

	touch(p);
	for (i = 0; i < ROUNDS; i++) {
		mark_begin();
		must(!mprotect(p, SIZE, PROT_READ), "mprotect");
		must(!mprotect(p, SIZE, PROT_READ | PROT_WRITE), "mprotect");
		mark_end();
	}
	munmap(p, SIZE);
	return 2 * ROUNDS;
}

static long bench_fault(int advice)
{
	char *p = map(advice);

	mark_begin();
	touch(p);
	mark_end();
	munmap(p, SIZE);
	return SIZE / page;
}

/* By a page less than a multiple of what a table maps, so that each entry is moved. */
static long bench_mremap(int advice)
{
	char *p = map(advice), *at, *q;
	int i;

	at = mmap(NULL, 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(at != MAP_FAILED, "mmap");
	at += ((unsigned long)p - (unsigned long)at) % (2 * MB) + page;
	touch(p);
	for (i = 0; i < ROUNDS; i++) {
		mark_begin();
		q = mremap(p, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, at);
		mark_end();
		must(q == at, "mremap");
		at = p;
		p = q;
	}
	munmap(p, SIZE);
	return ROUNDS;
}

static long bench_dontneed(int advice)
{
	char *p = map(advice);
	int i;

	for (i = 0; i < ROUNDS; i++) {
		touch(p);
		mark_begin();
		must(!madvise(p, SIZE, MADV_DONTNEED), "MADV_DONTNEED");
		mark_end();
	}
	munmap(p, SIZE);
	return ROUNDS;
}

/* A process that has many mappings ends. */
static long bench_exit(void)
{
	int i, n;


	for (i = 0; i < ROUNDS; i++) {
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (!pid) {
			/* No two can be merged. */
			for (n = 0; n < VMAS; n++) {
				int prot = PROT_READ | PROT_WRITE | (n & 1 ? PROT_EXEC : 0);
				char *p = mmap(NULL, page, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

				must(p != MAP_FAILED, "mmap");
				*p = 1;
			}
			settle();
			mark_begin();
			_exit(0);
		}
		must(waitpid(pid, NULL, 0) == pid, "waitpid");
		mark_end();
	}
	return ROUNDS;
}

/* What khugepaged does with a block, called by hand. */
static long bench_collapse(void)
{
	const int blocks = 8;
	char *p = map(MADV_NOHUGEPAGE), *from = (char *)(((unsigned long)p + 2 * MB - 1) & -(2 * MB));
	long i;

	for (i = 0; i < blocks * (long)(2 * MB); i += page)
		from[i] = 1;
	must(!madvise(p, SIZE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	mark_begin();
	must(!madvise(from, blocks * 2 * MB, MADV_COLLAPSE), "MADV_COLLAPSE");
	mark_end();
	munmap(p, SIZE);
	return blocks;
}

/* Two processes that wait for each other: two switches a round, with a read and a write each. */
static long bench_switch(void)
{
	int to[2], from[2], i;
	pid_t pid;
	char c = 0;

	must(!pipe(to) && !pipe(from), "pipe");
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		close(to[1]);
		while (read(to[0], &c, 1) == 1)
			must(write(from[1], &c, 1) == 1, "write");
		_exit(0);
	}
	for (i = 0; i < SWITCHES / 2 + 10; i++) {
		if (i == 10)
			mark_begin();
		must(write(to[1], &c, 1) == 1 && read(from[0], &c, 1) == 1, "pipe");
	}
	mark_end();
	close(to[1]);
	must(waitpid(pid, NULL, 0) == pid, "waitpid");
	close(to[0]);
	close(from[0]);
	close(from[1]);
	return SWITCHES;
}

/* A process that runs this program, which ends at once. */
static long bench_exec(void)
{
	int i;

	for (i = 0; i < EXECS + 1; i++) {
		int status;
		pid_t pid;

		settle();
		if (i)
			mark_begin();
		pid = fork();
		must(pid >= 0, "fork");
		if (!pid) {
			execl("/init", "init", "exec", NULL);
			_exit(1);
		}
		must(waitpid(pid, &status, 0) == pid && !status, "exec");
		if (i)
			mark_end();
	}
	return EXECS;
}

static void show(const char *when, const char *path)
{
	char line[128];
	FILE *f = fopen(path, "r");

	must(f != NULL, path);
	while (fgets(line, sizeof(line), f))
		if ((!strncmp(line, "Map", 3) && strncmp(line, "Mapped", 6)) || !strncmp(line, "PageTables", 10) ||
		    !strncmp(line, "MemFree", 7))
			printf("meminfo: %s %s", when, line);
	fclose(f);
}

/* What the cache of page tables holds, if there is one. */
static void show_cache(const char *when)
{
	char line[128];
	FILE *f = fopen("/sys/kernel/debug/kpkeys_pgtable_cache", "r");

	while (f && fgets(line, sizeof(line), f))
		printf("cache: %s %s", when, line);
	if (f)
		fclose(f);
}

static void meminfo(const char *when)
{
	show(when, "/proc/meminfo");
	show(when, "/sys/kernel/debug/direct_map");
	show_cache(when);
}

static void done(const char *name, long n)
{
	mark_report();
	printf("bench: %s %ld\n", name, n);
}

static void in_kernel(const char *name)
{
	char text[24] = "";
	int fd = open("/sys/kernel/debug/pgtable_bench", O_RDWR);

	must(fd >= 0, "pgtable_bench");
	if (write(fd, name, strlen(name)) < 0) {
		printf("bench: none %s: %s\n", name, strerror(errno));
	} else {
		must(pread(fd, text, sizeof(text) - 1, 0) > 0, name);
		done(name, atol(text));
	}
	close(fd);
}

/* More and more page tables: a page in each block of the address space. */
static void sparse(void)
{
	const size_t step = 1000 * 2 * MB;
	char name[16];
	char *p;
	int i;

	p = mmap(NULL, SPARSE_STEPS * step, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(p != MAP_FAILED, "mmap");
	must(!madvise(p, SPARSE_STEPS * step, MADV_NOHUGEPAGE), "madvise");
	for (i = 0; i < SPARSE_STEPS; i++) {
		size_t at;

		for (at = 0; at < step; at += 2 * MB)
			p[i * step + at] = 1;
		snprintf(name, sizeof(name), "sparse-%d", i + 1);
		meminfo(name);
	}
	munmap(p, SPARSE_STEPS * step);
	meminfo("sparse-freed");
}

int main(int argc, char **argv)
{
	static const char * const ops[] = {
		"table-alloc-free", "tables-2048", "vmalloc-1", "vmalloc-4", "vmalloc-16",
		"vmalloc-256", "vm-map-ram-1", "set-memory-block", "set-memory-split", "reserve-fill-return",
	};
	size_t i;

	if (argc > 1 && !strcmp(argv[1], "exec"))
		return 0;

	setvbuf(stdout, NULL, _IONBF, 0);
	page = sysconf(_SC_PAGESIZE);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	must(!mount("proc", "/proc", "proc", 0, NULL), "proc");
	must(!mount("sys", "/sys", "sysfs", 0, NULL), "sysfs");
	must(!mount("debug", "/sys/kernel/debug", "debugfs", 0, NULL), "debugfs");

	if (getenv("contended")) {
		in_kernel("contended");
		printf("bench: end\n");
		reboot(LINUX_REBOOT_CMD_POWER_OFF);
	}
	meminfo("before");
	done("fork-64MB", bench_fork(MADV_NOHUGEPAGE));
	done("fork-64MB-huge", bench_fork(MADV_HUGEPAGE));
	done("munmap-64MB", bench_munmap(MADV_NOHUGEPAGE));
	done("munmap-64MB-huge", bench_munmap(MADV_HUGEPAGE));
	done("mprotect-64MB", bench_mprotect(MADV_NOHUGEPAGE));
	done("page-fault", bench_fault(MADV_NOHUGEPAGE));
	done("switch", bench_switch());
	/* The benchmarks in the kernel split the direct map on purpose. */
	meminfo("after");
	sparse();
	done("mremap-64MB", bench_mremap(MADV_NOHUGEPAGE));
	done("dontneed-64MB", bench_dontneed(MADV_NOHUGEPAGE));
	done("exit-1000-vmas", bench_exit());
	done("collapse", bench_collapse());
	for (i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		in_kernel(ops[i]);
	/* Last, so that the others find memory as they always did. */
	done("exec", bench_exec());
	printf("bench: end\n");
	reboot(LINUX_REBOOT_CMD_POWER_OFF);
	return 1;
}
