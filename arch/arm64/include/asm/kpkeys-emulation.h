/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stand-ins for FEAT_S1POE, for machines without it. Not for merging.
 *
 * PIE emulation (needs FEAT_S1PIE): a leaf with the privileged pkey has UXN
 * clear besides, which selects permission index 6. PIR_EL1 makes that index
 * read-only or read-write. TLBs may hold the permission, so that taking it away
 * and invalidating the local TLB are one unit.
 *
 * Checking mode (needs nothing): leaves carry the pkey in bits 62:60, which
 * are ignored without FEAT_S1POE, and POR_EL1 is a per-CPU variable. Nothing
 * faults; kpkeys_assert_context() finds writers that are outside a context.
 */
#ifndef __ASM_KPKEYS_EMULATION_H
#define __ASM_KPKEYS_EMULATION_H

/* PIE_R and PIE_RW differ in one bit; index 6 is in bits 27:24 of PIR_EL1. */
#define KPKEYS_PIR_INDEX	6
#define KPKEYS_PIR_W_SHIFT	26

#ifdef __ASSEMBLER__

	/* As kpkeys_suspend in entry.S. */
	.macro kpkeys_emulated_suspend, where:req
alternative_if ARM64_KPKEYS_CHECKING
	b	.Lcheck\@
alternative_else_nop_endif
	mrs	x0, REG_PIR_EL1
	tbnz	x0, #KPKEYS_PIR_W_SHIFT, .Lopen\@
	mov	x0, #0
	b	.Ldone\@
.Lopen\@:
	mov	x0, \where
	bl	kpkeys_note_interrupted
	mrs	x0, REG_PIR_EL1
	bic	x0, x0, #(1 << KPKEYS_PIR_W_SHIFT)
	msr	REG_PIR_EL1, x0
	isb
	tlbi	vmalle1
	dsb	nsh
	isb
	b	.Ldone\@
.Lcheck\@:
	adr_this_cpu x1, kpkeys_por_granted, x0
	ldr	x0, [x1]
	cbz	x0, .Ldone\@
	mov	x0, \where
	bl	kpkeys_note_interrupted
	adr_this_cpu x1, kpkeys_por_granted, x0
	ldr	x0, [x1]
	str	xzr, [x1]
.Ldone\@:
	.endm

	/* Open the window in kpkeys_resume. x0: the word to clear afterwards. */
	.macro kpkeys_emulated_resume
alternative_if ARM64_KPKEYS_CHECKING
	b	.Lcheck\@
alternative_else_nop_endif
	mrs	x1, REG_PIR_EL1
	orr	x1, x1, #(1 << KPKEYS_PIR_W_SHIFT)
	msr	REG_PIR_EL1, x1
	/* No TLBI: a stale read-only entry is looked up again on the fault. */
	isb
	b	.Lopen\@
.Lcheck\@:
	adr_this_cpu x1, kpkeys_por_granted, x2
	mov	x2, #(POR_EL1_PGTABLES & ~POR_EL1_INIT)
	str	x2, [x1]
.Lopen\@:
	str	xzr, [x0]
	.endm

#else /* __ASSEMBLER__ */

#include <linux/percpu.h>

#include <asm/barrier.h>
#include <asm/cpufeature.h>
#include <asm/sysreg.h>

/* What POR_EL1 of this CPU grants on top of POR_EL1_INIT, in checking mode. */
DECLARE_PER_CPU(u64, kpkeys_por_granted);

static __always_inline bool kpkeys_emulated(void)
{
	return alternative_has_cap_unlikely(ARM64_KPKEYS_EMULATED);
}

static __always_inline bool kpkeys_checking(void)
{
	return alternative_has_cap_unlikely(ARM64_KPKEYS_CHECKING);
}

static __always_inline bool kpkeys_emulated_by_pie(void)
{
	return kpkeys_emulated() && !kpkeys_checking();
}

static __always_inline u64 kpkeys_emulated_read(void)
{
	if (kpkeys_checking())
		return POR_EL1_INIT | this_cpu_read(kpkeys_por_granted);

	return read_sysreg_s(SYS_PIR_EL1);
}

static __always_inline void kpkeys_emulated_write(u64 reg)
{
	unsigned long daif;

	if (kpkeys_checking()) {
		barrier();
		this_cpu_write(kpkeys_por_granted, reg & ~POR_EL1_INIT);
		barrier();
		return;
	}

	if (reg & BIT(KPKEYS_PIR_W_SHIFT)) {
		barrier();
		write_sysreg_s(reg, SYS_PIR_EL1);
		isb();
		return;
	}

	/*
	 * Not even a pseudo-NMI may come between: a thread that continued on
	 * another CPU would leave its permission to write behind in this TLB.
	 */
	asm volatile("mrs	%0, daif\n"
		     "msr	daifset, #0xf\n"
		     __msr_s(SYS_PIR_EL1, "%1")
		     "isb\n"
		     "tlbi	vmalle1\n"
		     "dsb	nsh\n"
		     "isb\n"
		     "msr	daif, %0\n"
		     : "=&r" (daif)
		     : "r" (reg)
		     : "memory");
}

static __always_inline u64 kpkeys_emulated_context(u64 reg, enum kpkeys_ctx ctx)
{
	u64 bit = kpkeys_checking() ?
		  POR_ELx_PERM_PREP(KPKEYS_PKEY_PGTABLES, POE_W) :
		  BIT(KPKEYS_PIR_W_SHIFT);

	return ctx == KPKEYS_CTX_PGTABLES ? reg | bit : reg & ~bit;
}

static __always_inline u64 kpkeys_emulated_init(void)
{
	return kpkeys_emulated_context(kpkeys_emulated_read(), KPKEYS_CTX_DEFAULT);
}

enum kpkeys_backend {
	KPKEYS_BACKEND_NONE,
	KPKEYS_BACKEND_POE,
	KPKEYS_BACKEND_PIE,
	KPKEYS_BACKEND_CHECKING,
};

/* From the command line and the value of ID_AA64MMFR3_EL1. */
enum kpkeys_backend kpkeys_backend(u64 mmfr3);

/* Should this CPU behave as if it had no BBM level 3, or no kpkeys? */
bool kpkeys_test_lacks_bbml3(void);
bool kpkeys_test_lacks_kpkeys(void);

/* What the overlay would say to a kernel write, for tests in checking mode. */
bool kpkeys_checking_denies_write(const void *addr);

#endif /* __ASSEMBLER__ */

#endif /* __ASM_KPKEYS_EMULATION_H */
