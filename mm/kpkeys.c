// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where sections of kpkeys contexts are interrupted.
 *
 * A section that is interrupted goes on later, with the window that it had opened.
 * If this was remembered in the frame of the exception or in the task, whoever can
 * write there could have a window opened in a thread that never had one. So the
 * place is noted in a table that has a privileged pkey itself. It is written while
 * the window in question is still open, or open again: no other one is opened for it.
 *
 * An entry is the address of a frame: that of the exception, or of the function
 * which interrupts. It is in use from kpkeys_note_interrupted() until the section
 * goes on. Entries are found by hashing, and nearly always at the first place.
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
 * Invariant: once there is a table, it can be written inside of a window only.
 * The first entry is none, but says that the table could not hold all and is
 * given up: then each window is opened again.
 */
static unsigned long *table __ro_after_init;
static unsigned int table_bits __ro_after_init;

/* What is cleared when a window is opened again of which the table does not know. */
static unsigned long unknown;

static void report(struct irq_work *work);
static DEFINE_IRQ_WORK(report_work, report);
static unsigned long refused;
static bool full_reported;

static void report(struct irq_work *work)
{
	if (READ_ONCE(refused)) {
		count_vm_event(KPKEYS_WINDOW_REFUSED);
		pr_err_ratelimited("a window was to be opened at %#lx, where none was open; it stays closed\n",
				   refused);
		WRITE_ONCE(refused, 0);
	}
	if (table && READ_ONCE(table[0]) && !full_reported) {
		full_reported = true;
		pr_warn("too many windows at a time; they are opened again without a check from now on\n");
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
 * kpkeys_note_interrupted() - a section is being interrupted
 * @where: identifies the place, see kpkeys_here().
 *
 * Context: Any, with the window of that section open. It has to be closed next.
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

	/* Who goes on without its window would take a fault. */
	WRITE_ONCE(table[0], 1);
	report_later();
}

/**
 * kpkeys_find_interrupted() - may a window be opened again?
 * @where: as for kpkeys_note_interrupted(), of the section that goes on.
 *
 * It is the caller that opens the window: no function returns with an open one.
 *
 * Context: Any.
 * Return: what is to be zeroed once the window is open; or NULL if no section was
 *         interrupted here, and then the window must stay closed. That has been
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
 * kpkeys_table_init() - check from now on where windows are opened again
 * @mem:  zeroed memory that can be written inside of a window only. It is kept.
 * @size: its size, a power of two. One word is needed for each section that is
 *        interrupted at a time: there cannot be more than threads.
 *
 * Context: Boot, with one CPU, and no section that is interrupted.
 */
void __init kpkeys_table_init(void *mem, size_t size)
{
	table_bits = ilog2(size / sizeof(*table));
	table = mem;
}
