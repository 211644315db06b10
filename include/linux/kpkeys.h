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
 * Contexts have no order. Entering one other than %KPKEYS_CTX_DEFAULT adds its grant,
 * entering %KPKEYS_CTX_DEFAULT removes all grants. The code relies on there being only
 * one context that grants anything: see Documentation/core-api/kpkeys.rst.
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
 * A window belongs to the section that opened it. Code that interrupts the section
 * runs in %KPKEYS_CTX_DEFAULT: exceptions, softirqs, the scheduler, other threads,
 * and probes of trace events. The window is restored when the section continues,
 * on whichever CPU. A thread that sleeps loses its window, and no window survives a
 * return to user space. On PREEMPT_RT, a thread that waits for a spinlock counts as
 * preempted, and gets its window back. A new thread starts in %KPKEYS_CTX_DEFAULT,
 * whatever its parent was doing.
 *
 * Only the register says that a window is open. The place where a section is
 * interrupted is noted in a table that can be written in a window only. A window is
 * opened again only if this table says so. Leaving a section that has opened a
 * window closes it, and loads no previous value. So forged state in ordinary memory can
 * keep a window closed, or open until the thread sleeps. It opens one only if an entry
 * that was never used up is left in the table, and only once.
 *
 * Sections nest, in any order of contexts, as long as each leave gets the state
 * of its own enter. If the context is already in force, neither enter nor leave
 * writes the register. A function, with what is inlined into it, can note one
 * interrupted section at a time, so it must not close two nested windows of its own
 * by %KPKEYS_CTX_DEFAULT.
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
 *   the value @reg.
 * - arch_kpkeys_init(): the value of the register in %KPKEYS_CTX_DEFAULT.
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

/* Identifies an interrupted section: the address of a frame, not its content. */
#define kpkeys_here()	((unsigned long)__builtin_frame_address(0))

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
		/* While the window is open: writing the table needs it. */
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
 * Context: Any. Only a section in %KPKEYS_CTX_DEFAULT may sleep. In any other, the
 *          window is closed when the thread wakes up.
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
	 * Only one context grants anything. If entering it has changed the
	 * register, the previous context was the default one.
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
 * kpkeys_drop_context() - close the window, if one is open
 *
 * For a thread that sleeps or returns to user space. A section that is left later
 * has nothing to close.
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
			    kpkeys_leave_context(ctx, &_T->state),	\
			    struct kpkeys_state state)

DEFINE_KPKEYS_GUARD(kpkeys_default, KPKEYS_CTX_DEFAULT)
DEFINE_KPKEYS_GUARD(kpkeys_pgtables, KPKEYS_CTX_PGTABLES)

#endif /* _LINUX_KPKEYS_H */
