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
 * The register belongs to the thread. It is switched with it, so a thread may
 * sleep, be preempted or migrate inside a window, and no other thread ever
 * runs with it. An exception or a softirq that arrives in a window runs in
 * %KPKEYS_CTX_DEFAULT, and the window is there again when the interrupted
 * code goes on. A new thread starts in %KPKEYS_CTX_DEFAULT, whatever its
 * parent was doing.
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
 */

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
		arch_kpkeys_write(arch_kpkeys_context(reg, ctx));
		state.restore = reg;
	}

	return state;
}

/**
 * kpkeys_enter_context() - enter a kpkeys context
 * @ctx: the context, a compile-time constant.
 *
 * Context: Any. The section may sleep.
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
 * @state: what the matching kpkeys_enter_context() returned.
 *
 * Context: Any. Must be called by the thread that entered, in the reverse order
 *          of entering.
 */
static __always_inline
void kpkeys_leave_context(const struct kpkeys_state *state)
{
	if (state->restore)
		arch_kpkeys_write(state->restore);
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
			    kpkeys_leave_context(&_T->state),		\
			    struct kpkeys_state state)

DEFINE_KPKEYS_GUARD(kpkeys_default, KPKEYS_CTX_DEFAULT)
DEFINE_KPKEYS_GUARD(kpkeys_pgtables, KPKEYS_CTX_PGTABLES)

#endif /* _LINUX_KPKEYS_H */
