// SPDX-License-Identifier: GPL-2.0-only
/*
 * The places where kpkeys sections are interrupted.
 *
 * A section that was interrupted continues with its window open. If the exception
 * frame or the task said so, an attacker who can write there could open a window in
 * a thread that never had one. So the place is noted in a table that has a
 * privileged pkey itself. The table is written while the window of the section is
 * still open, or open again. No other window is opened for it.
 *
 * An entry is the address of a frame: that of the exception, or that of the
 * function that interrupts. It is in use from kpkeys_note_interrupted() until the
 * section continues. Entries are found by hashing, nearly always at once.
 */
#define pr_fmt(fmt) "kpkeys: " fmt

#include <linux/atomic.h>
#include <linux/hash.h>
#include <linux/init.h>
#include <linux/instrumentation.h>
#include <linux/irq_work.h>
#include <linux/kpkeys.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/vmstat.h>

/*
 * Invariant: once the table exists, it can be written inside a window only.
 * Its first word is no entry. If it is set, the table was full once and is not used
 * any more: all windows are opened again.
 */
static unsigned long *table __ro_after_init;
static unsigned int table_bits __ro_after_init;

/* Cleared instead of an entry, when a window is opened again without a table. */
static unsigned long unknown;

static void report(struct irq_work *work);
static DEFINE_IRQ_WORK(report_work, report);
static unsigned long refused;
static bool full_reported;

static void report(struct irq_work *work)
{
	if (READ_ONCE(refused)) {
		count_vm_event(KPKEYS_WINDOW_REFUSED);
		pr_err_ratelimited("Refused to open a window at %#lx, where none was open\n",
				   refused);
		WRITE_ONCE(refused, 0);
	}
	if (table && READ_ONCE(table[0]) && !full_reported) {
		full_reported = true;
		pr_warn("Too many interrupted windows, not checking them any more\n");
	}
}

/* Interrupts may be off and RCU may not be watching. */
static __always_inline void report_later(void)
{
	instrumentation_begin();
	irq_work_queue(&report_work);
	instrumentation_end();
}

/**
 * kpkeys_note_interrupted() - note that a section is being interrupted
 * @where: identifies the place, see kpkeys_here().
 *
 * Context: Any, with the window of the section open. The caller closes it next.
 */
noinstr void kpkeys_note_interrupted(unsigned long where)
{
	unsigned int i, nr = 1U << table_bits, first;

	if (!table || READ_ONCE(table[0]))
		return;

	first = hash_long(where, table_bits);
	for (i = 0; i < nr; i++) {
		unsigned long *slot = &table[(first + i) & (nr - 1)];
		unsigned long old = 0;

		if (slot != table && !READ_ONCE(*slot) &&
		    raw_try_cmpxchg_relaxed(slot, &old, where))
			return;
	}

	/* A section that continues without its window would fault. */
	WRITE_ONCE(table[0], 1);
	report_later();
}

/**
 * kpkeys_find_interrupted() - may a window be opened again?
 * @where: as for kpkeys_note_interrupted(), of the section that continues.
 *
 * The caller opens the window, so that no function returns with an open one.
 *
 * Context: Any.
 * Return: the word to clear once the window is open; or NULL if no section was
 *         interrupted here. The window must then stay closed, and this has been
 *         reported.
 */
noinstr unsigned long *kpkeys_find_interrupted(unsigned long where)
{
	unsigned int i, nr = 1U << table_bits, first;

	if (!table)
		return &unknown;

	first = hash_long(where, table_bits);
	for (i = 0; i < nr; i++) {
		unsigned long *slot = &table[(first + i) & (nr - 1)];

		if (slot != table && READ_ONCE(*slot) == where)
			return slot;
	}
	if (READ_ONCE(table[0]))
		return &unknown;

	WRITE_ONCE(refused, where);
	report_later();

	return NULL;
}

/**
 * kpkeys_table_init() - start to check where windows are opened again
 * @mem:  zeroed memory that can be written inside a window only. It is kept.
 * @size: its size, a power of two. Each interrupted section takes a word.
 *
 * Context: Boot, with one CPU, and with no interrupted section.
 */
void __init kpkeys_table_init(void *mem, size_t size)
{
	table_bits = ilog2(size / sizeof(*table));
	table = mem;
}
