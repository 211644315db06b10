// SPDX-License-Identifier: GPL-2.0-only
/*
 * por ptrace|core: check that a debugger, or a core dump, has the value of POR_EL0 of a process, and that neither has one
 * on a CPU without FEAT_S1POE.
 */
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The C library of the toolchain may be older. */
#ifndef NT_ARM_POE
#define NT_ARM_POE	0x40f
#endif
#define HAS_POE		(1UL << 63)		/* HWCAP2_POE */
#define POR_EL0		"s3_3_c10_c2_4"
#define KEY_5		(7UL << (5 * 4))	/* what a new process does not have: access by pkey 5 */

static int has_poe;

static uint64_t get_por(void)
{
	uint64_t por;

	asm volatile("mrs %0, " POR_EL0 : "=r" (por));
	return por;
}

static void set_por(uint64_t por)
{
	asm volatile("msr " POR_EL0 ", %0\n\tisb" :: "r" (por));
}

/* A child whose POR_EL0 has the bits of the key must find them cleared, if the debugger has done so. */
static int traced(void)
{
	if (has_poe)
		set_por(get_por() | KEY_5);
	/* Otherwise it would stop, and nobody would be told. */
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return 2;
	raise(SIGSTOP);
	return has_poe && (get_por() & KEY_5);
}

static void debug(pid_t child)
{
	uint64_t por = 0;
	struct iovec io = { .iov_base = &por, .iov_len = sizeof(por) };
	long got = ptrace(PTRACE_GETREGSET, child, NT_ARM_POE, &io);

	if (!has_poe) {
		if (got != -1 || errno != EINVAL)
			errx(1, "a debugger reads %#lx where there is no such register", por);
		if (ptrace(PTRACE_SETREGSET, child, NT_ARM_POE, &io) != -1 || errno != EINVAL)
			errx(1, "a debugger writes where there is no such register");
	} else {
		if (got == -1)
			err(1, "PTRACE_GETREGSET");
		if ((por & KEY_5) != KEY_5)
			errx(1, "a debugger reads %#lx, without what the process has set", por);
		por &= ~KEY_5;
		if (ptrace(PTRACE_SETREGSET, child, NT_ARM_POE, &io) == -1)
			err(1, "PTRACE_SETREGSET");
	}
	ptrace(PTRACE_CONT, child, NULL, NULL);
}

static int dumped(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_CORE, &all);
	if (has_poe)
		set_por(get_por() | KEY_5);
	raise(SIGABRT);
	return 1;
}

/* The content of a note, or NULL. */
static void *note(char *core, const char *name, uint32_t type)
{
	Elf64_Ehdr *head = (void *)core;
	Elf64_Phdr *part = (void *)(core + head->e_phoff);
	char *at, *next;
	int i;

	for (i = 0; i < head->e_phnum; i++) {
		if (part[i].p_type != PT_NOTE)
			continue;
		for (at = core + part[i].p_offset; at < core + part[i].p_offset + part[i].p_filesz; at = next) {
			Elf64_Nhdr *n = (void *)at;
			char *content = at + sizeof(*n) + (n->n_namesz + 3) / 4 * 4;

			next = content + (n->n_descsz + 3) / 4 * 4;
			if (n->n_type == type && !strcmp(at + sizeof(*n), name))
				return content;
		}
	}
	return NULL;
}

static void read_core(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	uint64_t *por;
	char *core;

	if (fd < 0 || fstat(fd, &st))
		err(1, "%s", path);
	core = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (core == MAP_FAILED)
		err(1, "mmap");
	if (!note(core, "CORE", NT_PRSTATUS))
		errx(1, "%s has no registers at all", path);
	por = note(core, "LINUX", NT_ARM_POE);
	if (!has_poe && por)
		errx(1, "a core dump has %#lx where there is no such register", *por);
	if (has_poe && !por)
		errx(1, "a core dump has no POR_EL0");
	if (has_poe && (*por & KEY_5) != KEY_5)
		errx(1, "a core dump has %#lx, without what the process has set", *por);
}

int main(int argc, char **argv)
{
	int core, status;
	pid_t child;

	if (argc != 2 || (strcmp(argv[1], "ptrace") && strcmp(argv[1], "core")))
		errx(2, "usage: por ptrace|core");
	core = !strcmp(argv[1], "core");
	has_poe = !!(getauxval(AT_HWCAP2) & HAS_POE);

	child = fork();
	if (child < 0)
		err(1, "fork");
	if (!child)
		_exit(core ? dumped() : traced());
	if (waitpid(child, &status, 0) != child)
		err(1, "waitpid");

	if (core) {
		if (!WIFSIGNALED(status) || !WCOREDUMP(status))
			errx(1, "no core was dumped: status %#x", status);
		read_core("/tmp/core");
		return 0;
	}
	if (!WIFSTOPPED(status))
		errx(1, "the process did not stop: status %#x", status);
	debug(child);
	if (waitpid(child, &status, 0) != child || status)
		errx(1, "the process does not have what a debugger wrote: status %#x", status);
	return 0;
}
