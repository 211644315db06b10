/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_HARDENED_PGTABLES_H
#define _LINUX_KPKEYS_HARDENED_PGTABLES_H

#include <linux/jump_label.h>
#include <linux/kpkeys.h>

struct page;
struct ptdesc;

#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES

/*
 * Invariant: once true, a page table has %KPKEYS_PKEY_PGTABLES when it is
 * handed out. Earlier ones get it in kpkeys_hardened_pgtables_init(). For
 * exceptions, see Documentation/mm/kpkeys_hardened_pgtables.rst. Never becomes
 * false again.
 */
DECLARE_STATIC_KEY_FALSE(kpkeys_hardened_pgtables_key);

static __always_inline bool kpkeys_hardened_pgtables_enabled(void)
{
	return static_branch_unlikely(&kpkeys_hardened_pgtables_key);
}

/* Are the branches being patched, one after the other? This writes page tables itself. */
static __always_inline bool kpkeys_patching_branches(void)
{
	return atomic_read(&kpkeys_hardened_pgtables_key.key.enabled) < 0;
}

bool kpkeys_hardened_pgtables_requested(void);
int __must_check kpkeys_protect_pgtable(void *table, unsigned int order);
int __must_check kpkeys_unprotect_pgtable(void *table, unsigned int order);
struct page *kpkeys_pgtable_alloc_noprof(gfp_t gfp, unsigned int order);
void kpkeys_pgtable_free(struct page *page, unsigned int order);
void kpkeys_hardened_pgtables_init(void);
long __must_check kpkeys_protect_kernel_pgtables(void);

bool kpkeys_may_become_pgtable(struct ptdesc *ptdesc);
bool __kpkeys_may_map_pages(struct page **pages, unsigned int nr);
bool kpkeys_stopped_write(unsigned long addr, unsigned long pc);
void kpkeys_panic_on_stopped_write(unsigned long addr);
bool kpkeys_add_root(void *table);
bool kpkeys_del_root(void *table);
bool __kpkeys_is_root(const void *table);
void kpkeys_refuse_root(const void *table);

#else /* !CONFIG_KPKEYS_HARDENED_PGTABLES */

static __always_inline bool kpkeys_hardened_pgtables_enabled(void)
{
	return false;
}

static __always_inline bool kpkeys_patching_branches(void)
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

static inline bool kpkeys_may_become_pgtable(struct ptdesc *ptdesc)
{
	return true;
}

static inline bool __kpkeys_may_map_pages(struct page **pages, unsigned int nr)
{
	return true;
}

static inline bool kpkeys_stopped_write(unsigned long addr, unsigned long pc)
{
	return false;
}

static inline void kpkeys_panic_on_stopped_write(unsigned long addr)
{
}

static inline bool kpkeys_add_root(void *table)
{
	return true;
}

static inline bool kpkeys_del_root(void *table)
{
	return true;
}

static inline bool __kpkeys_is_root(const void *table)
{
	return true;
}

static inline void kpkeys_refuse_root(const void *table)
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
 * kpkeys_may_map_pages() - may these pages be mapped once more?
 * @pages: the pages.
 * @nr:    the number of pages.
 *
 * A mapping without the pkey would allow writes to a page table.
 *
 * Context: Any.
 * Return: true if none of them is a page table; otherwise false, and this has been
 *         reported.
 */
static __always_inline bool kpkeys_may_map_pages(struct page **pages, unsigned int nr)
{
	return !kpkeys_hardened_pgtables_enabled() || __kpkeys_may_map_pages(pages, nr);
}

/**
 * kpkeys_is_root() - is this the root of a user address space?
 * @table: what mm->pgd says. It may be forged.
 *
 * Call this before the table is loaded into a register or walked.
 *
 * Context: Any; takes no lock.
 * Return: true if pgd_alloc() has returned this table and it has not been freed
 *         since, or if page tables are not protected.
 */
static __always_inline bool kpkeys_is_root(const void *table)
{
	return !kpkeys_hardened_pgtables_enabled() || __kpkeys_is_root(table);
}

/**
 * kpkeys_enter_pgtable_write() - open the window for writing page tables
 *
 * For guard(kpkeys_hardened_pgtables)(), which keeps the state, and closes the
 * window with kpkeys_leave_context().
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
	if (IS_ENABLED(CONFIG_DEBUG_VM) && kpkeys_hardened_pgtables_enabled() &&
	    !kpkeys_patching_branches())
		kpkeys_assert_context(KPKEYS_CTX_PGTABLES);
}

/* guard(kpkeys_hardened_pgtables)(): page tables may be written up to the end of the scope. */
DEFINE_LOCK_GUARD_0(kpkeys_hardened_pgtables,
		    _T->state = kpkeys_enter_pgtable_write(),
		    kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &_T->state),
		    struct kpkeys_state state)

/**
 * kpkeys_pgtable_write() - run a statement that writes page tables
 * @stmt: the statement. Must not leave the scope.
 *
 * What guard(kpkeys_hardened_pgtables)() does, for a short statement in a hot path.
 * It is compiled twice, with and without a window of its own, so that no state is
 * kept and looked at: this costs one patched branch if page tables are not
 * protected, and one more branch if the window is open.
 *
 * Context: Any.
 */
#define kpkeys_pgtable_write(stmt)					\
do {									\
	const struct kpkeys_state __state = kpkeys_enter_pgtable_write(); \
									\
	if (unlikely(__state.changed)) {				\
		stmt;							\
		kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &__state);	\
	} else {							\
		stmt;							\
	}								\
} while (0)

#endif /* _LINUX_KPKEYS_HARDENED_PGTABLES_H */
