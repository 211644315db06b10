// SPDX-License-Identifier: GPL-2.0-only
/* Page tables, 4096 or as many as it is told, and nothing else: what they map is the zero page, which costs nothing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long nr = argc > 1 ? strtoul(argv[1], NULL, 10) : 4096;
	/* What a table of the last level maps. */
	unsigned long page = sysconf(_SC_PAGESIZE), step = page / 8 * page;
	volatile char *area = mmap(NULL, nr * step, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned long i;

	/* Without huge pages in the kernel there is no such advice. */
	if (area == MAP_FAILED || (madvise((void *)area, nr * step, MADV_NOHUGEPAGE) && errno != EINVAL)) {
		perror("tables");
		return 1;
	}
	for (i = 0; i < nr; i++)
		(void)area[i * step];

	return 0;
}
