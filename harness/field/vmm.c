// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmm IMAGE DTB: boot a kernel as a guest of KVM, with two CPUs, 1 GB and a port that prints, as guest.dts says. It ends with
 * 0 when the guest powers off, and with 1 when that resets or cannot go on.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CPUS		2
#define RAM		0x40000000UL
#define RAM_SIZE	(1UL << 30)
#define KERNEL		0x40200000UL
#define DTB		0x50000000UL
#define GICD		0x08000000UL
#define GICR		0x080a0000UL
#define PORT		0x09000000UL	/* of a PL011, of which all registers read as 0: it can take a character */

static int kvm, vcpus[CPUS];
static char *ram;

static int must(int fd, unsigned long request, void *argument, const char *what)
{
	int got = ioctl(fd, request, argument);

	if (got < 0)
		err(1, "%s", what);
	return got;
}

static void load(const char *path, uint64_t where)
{
	int fd = open(path, O_RDONLY);
	ssize_t got;

	if (fd < 0)
		err(1, "%s", path);
	for (where -= RAM; (got = read(fd, ram + where, RAM_SIZE - where)) > 0; where += got)
		;
	if (got < 0)
		err(1, "%s", path);
	close(fd);
}

static void set_gic(int gic, uint32_t group, uint64_t attr, void *value)
{
	struct kvm_device_attr a = { .group = group, .attr = attr, .addr = (uintptr_t)value };

	must(gic, KVM_SET_DEVICE_ATTR, &a, "KVM_SET_DEVICE_ATTR of the GIC");
}

static void set_register(int vcpu, size_t offset, uint64_t value)
{
	struct kvm_one_reg reg = {
		.id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | offset / sizeof(uint32_t),
		.addr = (uintptr_t)&value,
	};

	must(vcpu, KVM_SET_ONE_REG, &reg, "KVM_SET_ONE_REG");
}

static void create(void)
{
	struct kvm_userspace_memory_region region = { .guest_phys_addr = RAM, .memory_size = RAM_SIZE };
	struct kvm_create_device gic = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	struct kvm_vcpu_init target;
	uint64_t gicd = GICD, gicr = GICR;
	uint32_t irqs = 64;
	int vm, cpu;

	kvm = open("/dev/kvm", O_RDWR);
	if (kvm < 0)
		err(1, "/dev/kvm");
	vm = must(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram == MAP_FAILED)
		err(1, "memory of the guest");
	region.userspace_addr = (uintptr_t)ram;
	must(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	must(vm, KVM_CREATE_DEVICE, &gic, "KVM_CREATE_DEVICE");
	must(vm, KVM_ARM_PREFERRED_TARGET, &target, "KVM_ARM_PREFERRED_TARGET");
	for (cpu = 0; cpu < CPUS; cpu++) {
		struct kvm_vcpu_init init = target;

		vcpus[cpu] = ioctl(vm, KVM_CREATE_VCPU, cpu);
		if (vcpus[cpu] < 0)
			err(1, "KVM_CREATE_VCPU");
		init.features[0] = 1U << KVM_ARM_VCPU_PSCI_0_2 | (cpu ? 1U << KVM_ARM_VCPU_POWER_OFF : 0);
		must(vcpus[cpu], KVM_ARM_VCPU_INIT, &init, "KVM_ARM_VCPU_INIT");
	}
	set_gic(gic.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &gicd);
	set_gic(gic.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, &gicr);
	set_gic(gic.fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &irqs);
	set_gic(gic.fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
}

static void *run(void *which)
{
	int vcpu = *(int *)which;
	struct kvm_run *r = mmap(NULL, must(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE"),
				 PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

	if (r == MAP_FAILED)
		err(1, "kvm_run");
	for (;;) {
		must(vcpu, KVM_RUN, NULL, "KVM_RUN");
		if (r->exit_reason == KVM_EXIT_SYSTEM_EVENT) {
			fflush(stdout);
			_exit(r->system_event.type != KVM_SYSTEM_EVENT_SHUTDOWN);
		}
		if (r->exit_reason != KVM_EXIT_MMIO)
			errx(1, "the guest left with reason %u", r->exit_reason);
		if (!r->mmio.is_write)
			memset(r->mmio.data, 0, sizeof(r->mmio.data));
		else if (r->mmio.phys_addr == PORT)
			putchar(r->mmio.data[0]);
	}
}

int main(int argc, char **argv)
{
	pthread_t second;

	if (argc != 3)
		return 2;
	create();
	load(argv[1], KERNEL);
	load(argv[2], DTB);
	set_register(vcpus[0], offsetof(struct kvm_regs, regs.pc), KERNEL);
	set_register(vcpus[0], offsetof(struct kvm_regs, regs.regs[0]), DTB);
	if (pthread_create(&second, NULL, run, &vcpus[1]))
		errx(1, "pthread_create");
	run(&vcpus[0]);
	return 1;
}
