// SPDX-License-Identifier: GPL-2.0-only
/* Thousands of page tables, and nothing else: what they map is the zero page, which costs nothing. */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define NR	4096UL

int main(void)
{
	/* What a table of the last level maps. */
	unsigned long page = sysconf(_SC_PAGESIZE), step = page / 8 * page;
	volatile char *area = mmap(NULL, NR * step, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned long i;

	/* Without huge pages in the kernel there is no such advice. */
	if (area == MAP_FAILED || (madvise((void *)area, NR * step, MADV_NOHUGEPAGE) && errno != EINVAL)) {
		perror("tables");
		return 1;
	}
	for (i = 0; i < NR; i++)
		(void)area[i * step];

	return 0;
}
