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
 * section continues. An entry is in one of a few words, which the hash of the address
 * selects. If all of these are in use, the section continues without its window. This
 * is unlikely unless most of the table is in use.
 *
 * A section that is made to continue without its window leaves its entry behind. The
 * entry is good for one window, at the same address of the same stack. Such entries do
 * not accumulate: the next section that is interrupted there takes the entry over.
 */
#define pr_fmt(fmt) "kpkeys: " fmt

#include <linux/atomic.h>
#include <linux/export.h>
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
 * Invariant: once the table exists, it can be written inside a window only, and
 * an address is in it at most once.
 */
static unsigned long *table __ro_after_init;
static unsigned int table_bits __ro_after_init;

/* The number of words in which an entry can be. */
#define PROBES	16

/* Cleared instead of an entry, when a window is opened again without a table. */
static unsigned long unknown;

static void report(struct irq_work *work);
static DEFINE_IRQ_WORK(report_work, report);
static unsigned long refused;
static bool full;

/* Refusals that follow each other quickly are reported once, with the last address. */
static void report(struct irq_work *work)
{
	unsigned long where = xchg(&refused, 0);

	if (where) {
		count_vm_event(KPKEYS_WINDOW_REFUSED);
		pr_err_ratelimited("Refused to open a window at %#lx, where none was noted\n",
				   where);
	}
	if (xchg(&full, false))
		pr_warn_ratelimited("Too many interrupted windows, one was not opened again\n");
}

/* Interrupts may be off and RCU may not be watching. */
static __always_inline void report_later(void)
{
	instrumentation_begin();
	irq_work_queue(&report_work);
	instrumentation_end();
}

static __always_inline unsigned long *table_word(unsigned long where, unsigned int i)
{
	return &table[(hash_long(where, table_bits) + i) & ((1U << table_bits) - 1)];
}

/**
 * kpkeys_note_interrupted() - note that a section is being interrupted
 * @where: identifies the place, see kpkeys_here().
 *
 * Context: Any, with the window of the section open. The caller closes it next.
 */
noinstr void kpkeys_note_interrupted(unsigned long where)
{
	unsigned long *free;
	unsigned int i;

	if (!table)
		return;

	do {
		free = NULL;
		for (i = 0; i < PROBES; i++) {
			unsigned long *word = table_word(where, i);
			unsigned long val = READ_ONCE(*word);

			/* Nobody else adds or clears an entry for this address. */
			if (val == where)
				return;
			if (!val && !free)
				free = word;
		}
		if (free && raw_cmpxchg_relaxed(free, 0, where) == 0)
			return;
	} while (free);

	/*
	 * The section continues without its window, and faults if it needs one.
	 * kpkeys_find_interrupted() then refuses it, and reports both.
	 */
	WRITE_ONCE(full, true);
}
EXPORT_SYMBOL_GPL(kpkeys_note_interrupted);

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
	unsigned int i;

	if (!table)
		return &unknown;

	for (i = 0; i < PROBES; i++) {
		unsigned long *word = table_word(where, i);

		if (READ_ONCE(*word) == where)
			return word;
	}

	WRITE_ONCE(refused, where);
	report_later();

	return NULL;
}
EXPORT_SYMBOL_GPL(kpkeys_find_interrupted);

/**
 * kpkeys_table_init() - install the table of interrupted sections
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
