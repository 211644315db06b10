// SPDX-License-Identifier: GPL-2.0-only
/*
 * load MODULE [PARAMETER...]: as insmod, but once. busybox loads a module again, in another way, if that fails, and some do
 * their work in an init function that fails in the end.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char parameters[1024] = "";
	int module, i;

	if (argc < 2)
		return 2;
	for (i = 2; i < argc; i++) {
		if (strlen(parameters) + strlen(argv[i]) + 2 > sizeof(parameters))
			return 2;
		strcat(strcat(parameters, " "), argv[i]);
	}
	module = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (module < 0 || syscall(SYS_finit_module, module, parameters, 0)) {
		perror(argv[1]);
		return 1;
	}
	return 0;
}
