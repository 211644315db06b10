/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_HARDENED_PGTABLES_H
#define _LINUX_KPKEYS_HARDENED_PGTABLES_H

#include <linux/jump_label.h>
#include <linux/kpkeys.h>

struct page;

#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES

/*
 * Invariant: once true, every page table that the hardware can reach has
 * %KPKEYS_PKEY_PGTABLES in each of its writable mappings, except for those that
 * kpkeys_hardened_pgtables_init() has not visited yet. Never becomes false again.
 */
DECLARE_STATIC_KEY_FALSE(kpkeys_hardened_pgtables_key);

static __always_inline bool kpkeys_hardened_pgtables_enabled(void)
{
	return static_branch_unlikely(&kpkeys_hardened_pgtables_key);
}

bool kpkeys_hardened_pgtables_requested(void);
int __must_check kpkeys_protect_pgtable(void *table, unsigned int order);
int __must_check kpkeys_unprotect_pgtable(void *table, unsigned int order);
struct page *kpkeys_pgtable_alloc_noprof(gfp_t gfp, unsigned int order);
void kpkeys_pgtable_free(struct page *page, unsigned int order);
void kpkeys_hardened_pgtables_init(void);
long __must_check kpkeys_protect_kernel_pgtables(void);

#else /* !CONFIG_KPKEYS_HARDENED_PGTABLES */

static __always_inline bool kpkeys_hardened_pgtables_enabled(void)
{
	return false;
}

static inline
struct page *kpkeys_pgtable_alloc_noprof(gfp_t gfp, unsigned int order)
{
	return NULL;
}

static inline void kpkeys_pgtable_free(struct page *page, unsigned int order)
{
}

static inline void kpkeys_hardened_pgtables_init(void)
{
}

static inline long kpkeys_protect_kernel_pgtables(void)
{
	return 0;
}

#endif /* CONFIG_KPKEYS_HARDENED_PGTABLES */

#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES_DEBUG
bool kpkeys_free_pages_ok(struct page *page, unsigned int order);
#endif

/**
 * kpkeys_check_free_pages() - keep protected pages out of the page allocator
 * @page:  the first page to be freed.
 * @order: the order of the pages.
 *
 * Called by the page allocator. Costs nothing without
 * CONFIG_KPKEYS_HARDENED_PGTABLES_DEBUG.
 *
 * Context: Any.
 * Return: true if the pages may be freed; false if they must be leaked.
 */
static __always_inline bool kpkeys_check_free_pages(struct page *page,
						    unsigned int order)
{
#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES_DEBUG
	if (kpkeys_hardened_pgtables_enabled())
		return kpkeys_free_pages_ok(page, order);
#endif
	return true;
}

/**
 * kpkeys_enter_pgtable_write() - open the window for writing page tables
 *
 * For guard(kpkeys_hardened_pgtables)() and for the lazy MMU mode of an
 * architecture. Both keep the state, and close the window with
 * kpkeys_leave_context().
 *
 * Context: Any.
 * Return: the state for kpkeys_leave_context(), which does nothing with it if page
 *         tables are not protected.
 */
static __always_inline __must_check
struct kpkeys_state kpkeys_enter_pgtable_write(void)
{
	if (!kpkeys_hardened_pgtables_enabled())
		return (struct kpkeys_state){ };

	return __kpkeys_enter_context(KPKEYS_CTX_PGTABLES);
}

/**
 * kpkeys_assert_pgtable_write() - assert that page tables may be written here
 *
 * For functions that store to a page table. Costs nothing without
 * CONFIG_DEBUG_VM.
 *
 * Context: Any.
 */
static __always_inline void kpkeys_assert_pgtable_write(void)
{
	if (IS_ENABLED(CONFIG_DEBUG_VM) && kpkeys_hardened_pgtables_enabled())
		kpkeys_assert_context(KPKEYS_CTX_PGTABLES);
}

/* guard(kpkeys_hardened_pgtables)(): page tables may be written up to the end of the scope. */
DEFINE_LOCK_GUARD_0(kpkeys_hardened_pgtables,
		    _T->state = kpkeys_enter_pgtable_write(),
		    kpkeys_leave_context(&_T->state),
		    struct kpkeys_state state)

#endif /* _LINUX_KPKEYS_HARDENED_PGTABLES_H */
