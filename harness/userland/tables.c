// SPDX-License-Identifier: GPL-2.0-only
/* Thousands of page tables, for a page each. Hardly anything else of the kernel grows with them. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define NR	4096UL

int main(void)
{
	/* What a table of the last level maps. */
	unsigned long page = sysconf(_SC_PAGESIZE), step = page / 8 * page;
	char *area = mmap(NULL, NR * step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned long i;

	if (area == MAP_FAILED || madvise(area, NR * step, MADV_NOHUGEPAGE)) {
		perror("tables");
		return 1;
	}
	for (i = 0; i < NR; i++)
		area[i * step] = 1;

	return 0;
}
