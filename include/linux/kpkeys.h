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
 * @KPKEYS_CTX_DEFAULT:  only what all kernel code may do.
 * @KPKEYS_CTX_PGTABLES: page-table pages may be written.
 *
 * Contexts have no order. Entering a context other than %KPKEYS_CTX_DEFAULT
 * adds its grant to those that the thread already has. Entering
 * %KPKEYS_CTX_DEFAULT removes all grants.
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
 * mapping. It selects a field of a CPU register, which says what the kernel may
 * do through that mapping. A *kpkeys context* is a value of this register. Code
 * that writes memory with a privileged pkey opens a window: it enters the
 * context for that memory, writes, and leaves.
 *
 * The register belongs to the thread, and is switched with it. A thread may
 * sleep, be preempted or migrate inside a window, and no other thread runs with
 * this window open. Exceptions and softirqs that arrive in a window run in
 * %KPKEYS_CTX_DEFAULT. The window is restored when the interrupted code
 * continues. A new thread starts in %KPKEYS_CTX_DEFAULT, whatever its parent was
 * doing.
 *
 * Sections nest, in any order of contexts, as long as each leave gets the state
 * of its own enter. If the context is already in force, neither enter nor leave
 * writes the register.
 *
 * The context must be a compile-time constant, and enter and leave are always
 * inlined. So the kernel has no function that opens a window of the caller's
 * choice, which could be the target of a hijacked indirect call.
 *
 * An architecture selects CONFIG_ARCH_HAS_KPKEYS and provides in asm/kpkeys.h
 *
 * - arch_supports_kpkeys(): does this machine have such a register? A patched
 *   branch, false until the features of the boot CPU are known.
 * - arch_kpkeys_read(), arch_kpkeys_write(): the register of this CPU. Accesses
 *   before the write are checked with the old value, and accesses after it with
 *   the new one.
 * - arch_kpkeys_context(): the value of the register after entering @ctx with
 *   the value @reg. It is never 0.
 */

/* kpkeys_enter_context() for callers that have checked arch_supports_kpkeys(). */
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
		 * Keep the compiler from computing the new value before the
		 * branch, where nested sections would pay for it.
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
 * Return: the state to pass to kpkeys_leave_context(), owned by the caller.
 */
static __always_inline __must_check
struct kpkeys_state kpkeys_enter_context(enum kpkeys_ctx ctx)
{
	if (!arch_supports_kpkeys())
		return (struct kpkeys_state){ };

	return __kpkeys_enter_context(ctx);
}

/**
 * kpkeys_leave_context() - undo kpkeys_enter_context()
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
 * kpkeys_in_context() - does this thread have the grant of a context?
 * @ctx: the context, a compile-time constant. For %KPKEYS_CTX_DEFAULT: does the
 *       thread have no grant at all?
 *
 * Context: Any.
 * Return: true if entering @ctx would change nothing. Always true without kpkeys,
 *         as nothing is denied then.
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
 * For functions that write in a window which their callers have opened. Costs
 * nothing without CONFIG_DEBUG_VM.
 *
 * Context: Any.
 */
static __always_inline void kpkeys_assert_context(enum kpkeys_ctx ctx)
{
	VM_WARN_ON_ONCE(!kpkeys_in_context(ctx));
}

/* guard(kpkeys_default)(), guard(kpkeys_pgtables)(): a section up to the end of the scope. */
#define DEFINE_KPKEYS_GUARD(name, ctx)					\
	DEFINE_LOCK_GUARD_0(name,					\
			    _T->state = kpkeys_enter_context(ctx),	\
			    kpkeys_leave_context(&_T->state),		\
			    struct kpkeys_state state)

DEFINE_KPKEYS_GUARD(kpkeys_default, KPKEYS_CTX_DEFAULT)
DEFINE_KPKEYS_GUARD(kpkeys_pgtables, KPKEYS_CTX_PGTABLES)

#endif /* _LINUX_KPKEYS_H */
