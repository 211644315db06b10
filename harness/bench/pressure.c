// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of a kernel that "make pressure" boots: does what "pressure="
 * on the command line says, and prints "pressure: NAME NUMBER" for each figure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <linux/reboot.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB		(1024UL * 1024)
#define TABLE_SPAN	(2 * MB)	/* what a last-level table maps */
#define MAX_NODES	4

static void must(int ok, const char *what)
{
	if (!ok) {
		printf("pressure: error %s: %s\n", what, strerror(errno));
		reboot(LINUX_REBOOT_CMD_POWER_OFF);
	}
}

static void say(const char *name, long value)
{
	printf("pressure: %s %ld\n", name, value);
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	must(fd >= 0, path);
	must(write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
	close(fd);
}

/* The number behind @key in a file of "key number" or "key: number kB"; 0 if there is none. */
static long number(const char *path, const char *key)
{
	char line[256], name[64];
	long value, found = 0;
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%63[^: \t]%*[: \t]%ld", name, &value) == 2 && !strcmp(name, key))
			found = value;
	if (f)
		fclose(f);
	return found;
}

static long cache(const char *key)
{
	return number("/sys/kernel/debug/kpkeys_pgtable_cache", key);
}

static long vmstat(const char *key)
{
	return number("/proc/vmstat", key);
}

static void in_kernel(const char *command)
{
	char text[128] = "", name[32], *at = text;
	int fd = open("/sys/kernel/debug/pgtable_pressure", O_RDWR), n;
	long value;

	must(fd >= 0, "pgtable_pressure");
	must(write(fd, command, strlen(command)) > 0, command);
	must(pread(fd, text, sizeof(text) - 1, 0) > 0, command);
	close(fd);
	for (; sscanf(at, "%31s %ld%n", name, &value, &n) == 2; at += n)
		say(name, value);
}

static void drop_caches(int times)
{
	while (times--)
		put("/proc/sys/vm/drop_caches", "3");
}

/* How many kB of the direct map are mapped by blocks, of how many. */
static void direct_map(const char *when)
{
	static const char * const leaves[] = {
		"MapPUD", "MapContPMD", "MapPMD", "MapContPTE", "MapPTE"
	};
	long kb[5], blocks, all = 0;
	char name[64];
	int i;

	for (i = 0; i < 5; i++)
		all += kb[i] = number("/sys/kernel/debug/direct_map", leaves[i]);
	blocks = kb[0] + kb[1] + kb[2];
	snprintf(name, sizeof(name), "%s-blocks-permille", when);
	say(name, all ? blocks * 1000 / all : 0);
}

static long splits(void)
{
	return vmstat("direct_map_level2_splits") + vmstat("direct_map_level3_splits");
}

static void cached(const char *when)
{
	static const char * const keys[] = { "taken", "cached", "in_use", "meta", "reserved" };
	char name[64];
	size_t i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		snprintf(name, sizeof(name), "%s-%s", when, keys[i]);
		say(name, cache(keys[i]));
	}
}

/* Somebody to be killed, with @bytes of memory. */
static pid_t sleeper(size_t bytes)
{
	pid_t pid = fork();

	must(pid >= 0, "fork");
	if (!pid) {
		char *p = calloc(1, bytes);

		if (p)
			memset(p, 1, bytes);
		for (;;)
			pause();
	}
	return pid;
}

static void fragmented(void)
{
	int i;

	for (i = 0; i < 5; i++)
		sleeper(MB);
	sleep(1);
	in_kernel("fragment 0");
	say("available", number("/proc/meminfo", "MemFree"));
	in_kernel("take 8000");
	say("killed", vmstat("oom_kill"));
}

/* Tables of many processes at once, which all go. */
static void processes(void)
{
	static pid_t pids[1500];
	long before = splits();
	int i, n = sizeof(pids) / sizeof(pids[0]);

	for (i = 0; i < n; i++)
		pids[i] = sleeper(1);
	sleep(2);
	cached("many");
	for (i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	for (i = 0; i < n; i++)
		waitpid(pids[i], NULL, 0);
	cached("gone");
	drop_caches(20);
	cached("dropped");
	say("splits", splits() - before);
	say("killed", vmstat("oom_kill"));
}

/* Many tables, of which a few stay. */
static void kept(void)
{
	in_kernel("take 51200");
	cached("many");
	in_kernel("keep 1");
	cached("before");
	direct_map("before");
	say("splits", splits());
	in_kernel("shrink 512");
	drop_caches(20);
	cached("dropped");
	direct_map("dropped");
}

/* A process takes memory until it is killed, while many free tables are cached. */
static void used_up(void)
{
	volatile long *touched = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	must(touched != MAP_FAILED, "mmap");
	/* Or the page allocator has an eighth of memory in the list of the only CPU, even when it kills. */
	put("/proc/sys/vm/percpu_pagelist_high_fraction", "1000");
	in_kernel("take 40000");
	in_kernel("keep 0");
	cached("before");
	say("available-kb", number("/proc/meminfo", "MemAvailable"));
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		char *p = mmap(NULL, 1024 * MB, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		put("/proc/self/oom_score_adj", "1000");
		madvise(p, 1024 * MB, MADV_NOHUGEPAGE);
		for (; p != MAP_FAILED; p += 4096, ++*touched)
			*p = 1;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	say("touched", *touched);
	cached("after");
	say("killed", vmstat("oom_kill"));
}

static void boot(void)
{
	cached("boot");
}

static void node_tables(long *nr)
{
	char path[64];
	int nid;

	put("/proc/sys/vm/stat_refresh", "1");
	for (nid = 0; nid < MAX_NODES; nid++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/vmstat", nid);
		nr[nid] = number(path, "nr_page_table_pages");
	}
}

/* Where the tables of a task come from that runs on @cpu with this policy. */
static void tables_of(const char *name, int cpu, int policy, unsigned long nodes,
		      const char *cpuset)
{
	const size_t span = 400 * TABLE_SPAN;
	long before[MAX_NODES], after[MAX_NODES];
	int to[2], from[2];
	pid_t pid;
	char c;
	int nid;

	must(!pipe(to) && !pipe(from), "pipe");
	/* Until those of the last one are free. */
	sleep(1);
	node_tables(before);
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		cpu_set_t set;
		size_t at;
		char *p;

		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (cpuset) {
			char text[16];

			snprintf(text, sizeof(text), "%d", getpid());
			put(cpuset, text);
		}
		must(!sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
		must(!syscall(SYS_set_mempolicy, policy, nodes ? &nodes : NULL, nodes ? 8 : 0),
		     "set_mempolicy");
		p = mmap(NULL, span, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		must(p != MAP_FAILED, "mmap");
		madvise(p, span, MADV_NOHUGEPAGE);
		for (at = 0; at < span; at += TABLE_SPAN)
			p[at] = 1;
		must(write(to[1], "", 1) == 1 && read(from[0], &c, 1) == 1, "pipe");
		_exit(0);
	}
	must(read(to[0], &c, 1) == 1, "pipe");
	node_tables(after);
	printf("pressure: nodes-%s", name);
	for (nid = 0; nid < MAX_NODES; nid++)
		printf("%c%ld", nid ? ',' : ' ', after[nid] - before[nid]);
	printf("\n");
	must(write(from[1], "", 1) == 1, "pipe");
	waitpid(pid, NULL, 0);
	close(to[0]), close(to[1]), close(from[0]), close(from[1]);
}

/* Nodes 0 and 1 have memory and CPUs 0-1 and 2; the node of CPU 3 has none. */
static void nodes(void)
{
	mkdir("/cgroup", 0755);
	must(!mount("cgroup", "/cgroup", "cgroup2", 0, NULL), "cgroup2");
	put("/cgroup/cgroup.subtree_control", "+cpuset");
	mkdir("/cgroup/one", 0755);
	put("/cgroup/one/cpuset.mems", "1");

	tables_of("cpu-of-0", 0, MPOL_DEFAULT, 0, NULL);
	tables_of("cpu-of-1", 2, MPOL_DEFAULT, 0, NULL);
	tables_of("cpu-without-memory", 3, MPOL_DEFAULT, 0, NULL);
	tables_of("bind-1", 0, MPOL_BIND, 2, NULL);
	tables_of("prefer-1", 0, MPOL_PREFERRED, 2, NULL);
	tables_of("interleave", 0, MPOL_INTERLEAVE, 3, NULL);
	tables_of("cpuset-1", 0, MPOL_DEFAULT, 0, "/cgroup/one/cgroup.procs");
	cached("after");
}

/* For who reads the log. */
static void dump(const char *path)
{
	char line[128];
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		printf("%s: %s", strrchr(path, '/') + 1, line);
	if (f)
		fclose(f);
}

static const struct {
	const char *name;
	void (*run)(void);
} scenarios[] = {
	{ "boot", boot }, { "fragmented", fragmented }, { "processes", processes },
	{ "kept", kept }, { "used-up", used_up }, { "nodes", nodes },
};

int main(void)
{
	const char *name = getenv("pressure");
	size_t i;

	setvbuf(stdout, NULL, _IONBF, 0);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	must(!mount("proc", "/proc", "proc", 0, NULL), "proc");
	must(!mount("sys", "/sys", "sysfs", 0, NULL), "sysfs");
	must(!mount("debug", "/sys/kernel/debug", "debugfs", 0, NULL), "debugfs");

	must(name != NULL, "pressure=");
	for (i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
		if (!strcmp(name, scenarios[i].name))
			scenarios[i].run();
	dump("/sys/kernel/debug/kpkeys_pgtable_cache");
	dump("/sys/kernel/debug/direct_map");
	printf("pressure: end\n");
	reboot(LINUX_REBOOT_CMD_POWER_OFF);
	return 1;
}
