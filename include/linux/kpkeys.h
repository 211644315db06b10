/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_H
#define _LINUX_KPKEYS_H

#include <linux/build_bug.h>
#include <linux/cleanup.h>
#include <linux/compiler.h>
#include <linux/kpkeys_types.h>
#include <linux/mmdebug.h>
#include <linux/types.h>

/**
 * enum kpkeys_ctx - what a thread may do with memory that has a kernel pkey
 * @KPKEYS_CTX_DEFAULT:  no more than what all kernel code may do.
 * @KPKEYS_CTX_PGTABLES: page-table pages may be written.
 *
 * Contexts are not ordered. Entering a context other than
 * %KPKEYS_CTX_DEFAULT grants what that context is for on top of what the
 * thread already has; entering %KPKEYS_CTX_DEFAULT takes every grant away.
 */
enum kpkeys_ctx {
	KPKEYS_CTX_DEFAULT,
	KPKEYS_CTX_PGTABLES,
};

#ifdef CONFIG_KPKEYS
#include <asm/kpkeys.h>
#else
#include <asm-generic/kpkeys.h>
#endif

/**
 * DOC: Kernel pkeys contexts
 *
 * A protection key (pkey) is a small number in the page-table entries of a
 * mapping. What may be done through such a mapping is looked up, by that
 * number, in a register of the CPU. A *kpkeys context* is a value of that
 * register. Code that has to write memory with a privileged pkey opens a
 * window: it enters the context made for that memory, writes, and leaves.
 *
 * A window belongs to the section that opened it. What interrupts the section is
 * no part of it and runs in %KPKEYS_CTX_DEFAULT: exceptions, softirqs, the
 * scheduler, the threads that it switches to, and probes of trace events. The
 * window is there again when the section goes on, if need be on another CPU. A
 * thread that sleeps gives its window up, and no window survives a return to user
 * space. A new thread starts in %KPKEYS_CTX_DEFAULT, whatever its parent was doing.
 *
 * That a window is open is remembered by the register alone. Where a section is
 * interrupted is noted in a table, which takes an open window to write. A window is
 * opened again only where the table says so. Leaving a section that has opened a
 * window closes it, instead of loading what was in force before. Whatever is kept in
 * ordinary memory, on a stack or in a task, can only keep a window closed.
 *
 * Sections nest, in any order of contexts, as long as each leave is given the
 * state of its own enter. Entering a context that is in force already writes
 * no register, and neither does the leave which belongs to it.
 *
 * The context must be a compile-time constant, and enter and leave are always
 * inlined: the kernel has no function that opens a window of the caller's
 * choice, which a hijacked indirect call could be aimed at.
 *
 * An architecture selects CONFIG_ARCH_HAS_KPKEYS and provides in asm/kpkeys.h
 *
 * - arch_supports_kpkeys(): is there such a register on this machine? A
 *   patched branch, false until the boot CPU's features are known.
 * - arch_kpkeys_read(), arch_kpkeys_write(): the register of this CPU. Once the
 *   write returns, accesses before it were checked with the old value, and
 *   accesses after it are checked with the new one.
 * - arch_kpkeys_context(): the value that @reg becomes on entering @ctx.
 * - arch_kpkeys_init(): the value in %KPKEYS_CTX_DEFAULT.
 */

#ifdef CONFIG_KPKEYS
void kpkeys_note_interrupted(unsigned long where);
unsigned long *kpkeys_find_interrupted(unsigned long where);
void kpkeys_table_init(void *mem, size_t size);
#else
static inline void kpkeys_note_interrupted(unsigned long where)
{
}

static inline unsigned long *kpkeys_find_interrupted(unsigned long where)
{
	return NULL;
}
#endif

/* What identifies an interrupted section: where a thread is, not what it says. */
#define kpkeys_here()	((unsigned long)__builtin_frame_address(0))

/* kpkeys_enter_context() for who knows that there are kpkeys. */
static __always_inline __must_check
struct kpkeys_state __kpkeys_enter_context(enum kpkeys_ctx ctx)
{
	struct kpkeys_state state = { };
	u64 reg;

	BUILD_BUG_ON_MSG(!__builtin_constant_p(ctx),
			 "a kpkeys context must be a constant");

	reg = arch_kpkeys_read();
	if (arch_kpkeys_context(reg, ctx) != reg) {
		/*
		 * Or the compiler works out the new value before the branch,
		 * and each nested section pays for what it does not use.
		 */
		OPTIMIZER_HIDE_VAR(reg);
		/* As long as the table can be written. */
		if (ctx == KPKEYS_CTX_DEFAULT)
			kpkeys_note_interrupted(kpkeys_here());
		arch_kpkeys_write(arch_kpkeys_context(reg, ctx));
		state.changed = true;
	}

	return state;
}

/**
 * kpkeys_enter_context() - enter a kpkeys context
 * @ctx: the context, a compile-time constant.
 *
 * Context: Any. A section other than one of %KPKEYS_CTX_DEFAULT should not sleep:
 *          when the thread wakes up, the window is closed.
 * Return: the state to hand to kpkeys_leave_context(), owned by the caller.
 */
static __always_inline __must_check
struct kpkeys_state kpkeys_enter_context(enum kpkeys_ctx ctx)
{
	if (!arch_supports_kpkeys())
		return (struct kpkeys_state){ };

	return __kpkeys_enter_context(ctx);
}

/**
 * kpkeys_leave_context() - go back to what was before kpkeys_enter_context()
 * @ctx:   the context that was entered, a compile-time constant.
 * @state: what the matching kpkeys_enter_context() returned.
 *
 * Context: Any. Must be called by the function that entered, in the reverse order
 *          of entering.
 */
static __always_inline
void kpkeys_leave_context(enum kpkeys_ctx ctx, const struct kpkeys_state *state)
{
	unsigned long *slot;

	if (!state->changed)
		return;

	/*
	 * With one context that grants anything, who has changed the register by
	 * entering it was in the default one.
	 */
	if (ctx != KPKEYS_CTX_DEFAULT) {
		arch_kpkeys_write(arch_kpkeys_init());
		return;
	}

	slot = kpkeys_find_interrupted(kpkeys_here());
	if (slot) {
		arch_kpkeys_write(arch_kpkeys_context(arch_kpkeys_read(),
						      KPKEYS_CTX_PGTABLES));
		WRITE_ONCE(*slot, 0);
	}
}

/**
 * kpkeys_drop_context() - be in %KPKEYS_CTX_DEFAULT from now on
 *
 * For where no section goes on: a thread sleeps, or returns to user space. A
 * section that is left later finds nothing to close.
 *
 * Context: Any.
 * Return: true if a window was open.
 */
static __always_inline bool kpkeys_drop_context(void)
{
	u64 reg;

	if (!arch_supports_kpkeys())
		return false;

	reg = arch_kpkeys_read();
	if (likely(arch_kpkeys_context(reg, KPKEYS_CTX_DEFAULT) == reg))
		return false;

	arch_kpkeys_write(arch_kpkeys_init());

	return true;
}

/**
 * kpkeys_in_context() - does this thread have what a context grants?
 * @ctx: the context, a compile-time constant. For %KPKEYS_CTX_DEFAULT the
 *       question is whether the thread has nothing else.
 *
 * Context: Any.
 * Return: true if entering @ctx would change nothing; also true where there are
 *         no kpkeys, and nothing is ever denied.
 */
static __always_inline bool kpkeys_in_context(enum kpkeys_ctx ctx)
{
	u64 reg;

	if (!arch_supports_kpkeys())
		return true;

	reg = arch_kpkeys_read();

	return arch_kpkeys_context(reg, ctx) == reg;
}

/**
 * kpkeys_assert_context() - assert that a context is in force
 * @ctx: the context, a compile-time constant.
 *
 * For the functions that do the writing while their callers open the window.
 * Costs nothing without CONFIG_DEBUG_VM.
 *
 * Context: Any.
 */
static __always_inline void kpkeys_assert_context(enum kpkeys_ctx ctx)
{
	VM_WARN_ON_ONCE(!kpkeys_in_context(ctx));
}

/*
 * guard(kpkeys_default)() and guard(kpkeys_pgtables)(): one section for the
 * rest of the scope.
 */
#define DEFINE_KPKEYS_GUARD(name, ctx)					\
	DEFINE_LOCK_GUARD_0(name,					\
			    _T->state = kpkeys_enter_context(ctx),	\
			    kpkeys_leave_context(ctx, &_T->state),	\
			    struct kpkeys_state state)

DEFINE_KPKEYS_GUARD(kpkeys_default, KPKEYS_CTX_DEFAULT)
DEFINE_KPKEYS_GUARD(kpkeys_pgtables, KPKEYS_CTX_PGTABLES)

#endif /* _LINUX_KPKEYS_H */
