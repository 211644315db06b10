// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests that act as the attacker of Documentation/mm/kpkeys_hardened_pgtables.rst,
 * who can write anywhere in kernel memory, any number of times, but does not control
 * what the kernel executes.
 *
 * Each test changes ordinary memory with plain stores, outside any window, in order to
 * write to a page table. If page tables are not protected, the write must succeed:
 * this shows that the attack works.
 */
#include <kunit/test.h>

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/kmsg_dump.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>
#include <linux/kthread.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <linux/pgalloc.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/set_memory.h>
#include <linux/stop_machine.h>
#include <linux/text-patching.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>

#ifdef CONFIG_KPKEYS_SPLIT_RESERVE
#include <linux/kpkeys_split_reserve.h>
#endif

#include <linux/mmu_context.h>
#include <asm/insn.h>
#include <asm/ptrace.h>
#include <asm/stacktrace.h>

#include <trace/events/kernel_mapping.h>
#include <trace/events/sched.h>

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");

/* Far beyond the pauses of a virtual machine on a busy host. */
#define SPIN_LIMIT_NS	(60ULL * NSEC_PER_SEC)

struct attacker {
	/* The page table under attack. Nothing uses it. */
	struct ptdesc *ptdesc;
	u64 *table;
	/* An address space of the attacker, and another one. */
	struct mm_struct *mm, *other;
};

static bool protected(void)
{
	return kpkeys_hardened_pgtables_enabled();
}

/* Store to the table. Returns 0 if this succeeds. */
static int write_table(struct kunit *test)
{
	struct attacker *a = test->priv;
	u64 val = 0;

	return copy_to_kernel_nofault(a->table, &val, sizeof(val));
}

/* The attack fails if page tables are protected, and succeeds if not. */
#define EXPECT_STOPPED(test)						\
	KUNIT_EXPECT_EQ(test, write_table(test), protected() ? -EFAULT : 0)

static unsigned long vm_event(int item)
{
	unsigned long *events = kcalloc(NR_VM_EVENT_ITEMS, sizeof(*events), GFP_KERNEL);
	unsigned long nr = 0;

	if (events) {
		all_vm_events(events);
		nr = events[item];
	}
	kfree(events);

	return nr;
}

/* How many lines of the log from @iter on have @what in them? */
static unsigned int said(struct kmsg_dump_iter *iter, const char *what)
{
	static char line[256];
	unsigned int nr = 0;
	size_t len;

	while (kmsg_dump_get_line(iter, false, line, sizeof(line), &len))
		nr += !!strnstr(line, what, len);

	return nr;
}

/* -- Saved state ---------------------------------------------------------- */

struct victim {
	struct kunit *test;
	struct completion done;
	bool ready, go;
	int ret;
};

/* A thread that never enters a context, and then tries to write. */
static int victim_thread(void *data)
{
	struct victim *v = data;
	u64 end = ktime_get_mono_fast_ns() + SPIN_LIMIT_NS;

	WRITE_ONCE(v->ready, true);
	while (!READ_ONCE(v->go) && ktime_get_mono_fast_ns() < end)
		cpu_relax();
	v->ret = write_table(v->test);
	complete(&v->done);

	return 0;
}

/* Find the registers of an interrupted thread on its stack. */
static struct pt_regs *interrupted_regs(struct task_struct *task)
{
	unsigned long fp = task->thread.cpu_context.fp;
	int i;

	for (i = 0; i < 32 && on_task_stack(task, fp, sizeof(struct frame_record_meta)); i++) {
		struct frame_record *record = (struct frame_record *)fp;

		if (!record->fp && !record->lr) {
			struct frame_record_meta *meta =
				container_of(record, struct frame_record_meta, record);

			if (meta->type != FRAME_META_TYPE_PT_REGS)
				return NULL;
			return container_of(meta, struct pt_regs, stackframe);
		}
		fp = record->fp;
	}

	return NULL;
}

static struct task_struct *start_victim(struct kunit *test, struct victim *v)
{
	struct task_struct *task;

	v->test = test;
	init_completion(&v->done);
	KUNIT_ASSERT_EQ(test, 0,
			set_cpus_allowed_ptr(current, cpumask_of(raw_smp_processor_id())));
	task = kthread_create(victim_thread, v, "kpkeys_victim");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	kthread_bind(task, raw_smp_processor_id());
	wake_up_process(task);
	while (!READ_ONCE(v->ready))
		schedule_timeout_uninterruptible(1);

	return task;
}

static void end_victim(struct victim *v, struct task_struct *task)
{
	WRITE_ONCE(v->go, true);
	wait_for_completion(&v->done);
	kthread_stop_put(task);
	set_cpus_allowed_ptr(current, cpu_possible_mask);
}

/* The frame of a thread that was preempted outside a context says that it was in one. */
static void attacker_test_pt_regs(struct kunit *test)
{
	unsigned long refused = vm_event(KPKEYS_WINDOW_REFUSED);
	struct task_struct *task;
	struct victim v = { };
	struct pt_regs *regs;
	bool ended;

	if (!IS_ENABLED(CONFIG_PREEMPTION))
		kunit_skip(test, "needs CONFIG_PREEMPTION");

	task = start_victim(test, &v);
	/* Not every switch to this thread need come from an interrupt. */
	while (!(regs = interrupted_regs(task)) && !completion_done(&v.done))
		schedule_timeout_uninterruptible(1);
	ended = completion_done(&v.done);
	if (regs)
		WRITE_ONCE(regs->kpkeys, -1);
	end_victim(&v, task);

	KUNIT_ASSERT_FALSE_MSG(test, ended, "the thread was not interrupted in time");
	KUNIT_EXPECT_EQ(test, v.ret, protected() ? -EFAULT : 0);
	/* The report may have to wait for the next tick. */
	if (protected())
		schedule_timeout_uninterruptible(HZ / 10);
	KUNIT_EXPECT_EQ(test, vm_event(KPKEYS_WINDOW_REFUSED) - refused, protected());
}

/* The saved state of a section says that enter has written the register. */
static void attacker_test_sleeper(struct kunit *test)
{
	struct kpkeys_state state;

	/* As if a window had been interrupted. */
	state = kpkeys_enter_context(KPKEYS_CTX_DEFAULT);
	KUNIT_EXPECT_FALSE(test, state.changed);
	WRITE_ONCE(state.changed, arch_supports_kpkeys());
	kpkeys_leave_context(KPKEYS_CTX_DEFAULT, &state);
	EXPECT_STOPPED(test);

	/* As if a window had been opened. */
	state = kpkeys_enter_context(KPKEYS_CTX_DEFAULT);
	WRITE_ONCE(state.changed, arch_supports_kpkeys());
	kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &state);
	EXPECT_STOPPED(test);
}

struct section {
	struct kunit *test;
	struct completion entered, go, done;
	struct kpkeys_state *state;
	int ret;
};

/* Sleeps in a section, with the state on its stack. */
static int section_thread(void *data)
{
	struct section *s = data;
	struct kpkeys_state state = kpkeys_enter_context(KPKEYS_CTX_DEFAULT);

	WRITE_ONCE(s->state, &state);
	complete(&s->entered);
	wait_for_completion(&s->go);
	kpkeys_leave_context(KPKEYS_CTX_DEFAULT, &state);
	s->ret = write_table(s->test);
	complete(&s->done);

	return 0;
}

/* The same, on the stack of another thread. */
static void attacker_test_other_stack(struct kunit *test)
{
	struct section s = { .test = test };
	struct task_struct *task;

	init_completion(&s.entered);
	init_completion(&s.go);
	init_completion(&s.done);
	task = kthread_run(section_thread, &s, "kpkeys_section");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	wait_for_completion(&s.entered);
	WRITE_ONCE(s.state->changed, arch_supports_kpkeys());
	complete(&s.go);
	wait_for_completion(&s.done);

	KUNIT_EXPECT_EQ(test, s.ret, protected() ? -EFAULT : 0);
}

/*
 * A section was made to continue without its window, again and again. Its entry in the
 * table of interrupted sections is good for one window.
 */
static void attacker_test_stale_entry(struct kunit *test)
{
	unsigned long where = kpkeys_here(), *word;
	int i;

	if (!protected())
		kunit_skip(test, "page tables are not protected");

	scoped_guard(kpkeys_hardened_pgtables) {
		for (i = 0; i < 3; i++)
			kpkeys_note_interrupted(where);
		word = kpkeys_find_interrupted(where);
		if (word)
			WRITE_ONCE(*word, 0);
	}
	KUNIT_EXPECT_NOT_NULL(test, word);
	KUNIT_EXPECT_NULL(test, kpkeys_find_interrupted(where));
}

/* Enough for 32 GB of memory. */
#define MAX_ENTRIES	BIT(18)

/* Returns the number of entries that fit. All other CPUs are stopped. */
static int fill_table(void *data)
{
	unsigned long *found = data, *word;
	unsigned int nr, i;

	guard(kpkeys_hardened_pgtables)();

	for (nr = 0; nr < MAX_ENTRIES; nr++) {
		kpkeys_note_interrupted(PAGE_OFFSET + (u64)nr * THREAD_SIZE);
		if (!kpkeys_find_interrupted(PAGE_OFFSET + (u64)nr * THREAD_SIZE))
			break;
	}
	/* Where no section was interrupted. */
	*found = (unsigned long)kpkeys_find_interrupted(PAGE_OFFSET + sizeof(long));
	for (i = 0; i < nr; i++) {
		word = kpkeys_find_interrupted(PAGE_OFFSET + (u64)i * THREAD_SIZE);
		WRITE_ONCE(*word, 0);
	}

	return nr;
}

/* So many sections are interrupted that no entry is left: no window is opened unseen. */
static void attacker_test_full_table(struct kunit *test)
{
	struct kmsg_dump_iter log;
	unsigned long found = 0;
	int nr;

	if (!protected())
		kunit_skip(test, "page tables are not protected");

	kmsg_dump_rewind(&log);
	said(&log, "");
	nr = stop_machine(fill_table, &found, NULL);
	kunit_info(test, "room for %d sections\n", nr);
	KUNIT_EXPECT_EQ(test, found, 0);
	EXPECT_STOPPED(test);
	if (!found && nr == MAX_ENTRIES)
		kunit_skip(test, "the table is larger than that");

	/*
	 * The report may have to wait for the next tick. Then check that a second report
	 * does not repeat the warning.
	 */
	schedule_timeout_uninterruptible(HZ / 10);
	KUNIT_EXPECT_PTR_EQ(test, kpkeys_find_interrupted(PAGE_OFFSET + sizeof(long)), NULL);
	schedule_timeout_uninterruptible(HZ / 10);
	KUNIT_EXPECT_EQ(test, said(&log, "kpkeys: Too many interrupted windows"), 1);
}

/* A forged count keeps the window of lazy MMU mode open until the next sleep. */
static void attacker_test_lazy_mmu(struct kunit *test)
{
	lazy_mmu_mode_enable();
	current->lazy_mmu_state.enable_count++;
	lazy_mmu_mode_disable();
	schedule_timeout_uninterruptible(1);
	EXPECT_STOPPED(test);
	lazy_mmu_mode_disable();
	EXPECT_STOPPED(test);

	/* A section that did not begin. */
	current->lazy_mmu_state.enable_count++;
	EXPECT_STOPPED(test);
	lazy_mmu_mode_disable();
	EXPECT_STOPPED(test);
}

/* -- Code that runs inside a window --------------------------------------- */

static struct kunit *probed_test;
static int probe_ret, nr_probes;

static void probe_split(void *data, unsigned long pfn, unsigned long size)
{
	nr_probes++;
	probe_ret = write_table(probed_test);
}

static void probe_switch(void *data, bool preempt, struct task_struct *prev,
			 struct task_struct *next, unsigned int prev_state)
{
	if (prev != probed_test->priv && current->kunit_test != probed_test)
		return;
	nr_probes++;
	probe_ret = write_table(probed_test);
}

/* A probe, such as a BPF program, writes while its event is emitted inside a window. */
static void attacker_test_probe(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_TRACEPOINTS))
		kunit_skip(test, "needs CONFIG_TRACEPOINTS");

	probed_test = test;
	nr_probes = 0;
	KUNIT_ASSERT_EQ(test, register_trace_kernel_mapping_split(probe_split, NULL), 0);
	scoped_guard(kpkeys_hardened_pgtables) {
		trace_kernel_mapping_split(0, 0);
		KUNIT_EXPECT_EQ(test, write_table(test), 0);
	}
	unregister_trace_kernel_mapping_split(probe_split, NULL);
	KUNIT_EXPECT_EQ(test, nr_probes, 1);
	KUNIT_EXPECT_EQ(test, probe_ret, protected() ? -EFAULT : 0);

	nr_probes = 0;
	KUNIT_ASSERT_EQ(test, register_trace_sched_switch(probe_switch, NULL), 0);
	lazy_mmu_mode_enable();
	schedule_timeout_uninterruptible(1);
	lazy_mmu_mode_disable();
	unregister_trace_sched_switch(probe_switch, NULL);
	tracepoint_synchronize_unregister();
	KUNIT_EXPECT_GE(test, nr_probes, 1);
	KUNIT_EXPECT_EQ(test, probe_ret, protected() ? -EFAULT : 0);
}

/* -- The allocator -------------------------------------------------------- */

/* No page of the cache can be written: tables, free pages, and its own state. */
static void attacker_test_pages_of_the_cache(struct kunit *test)
{
	unsigned long pfn, nr = 0, open = 0;

	if (!protected())
		kunit_skip(test, "there is no cache");

	for (pfn = PHYS_PFN(memblock_start_of_DRAM());
	     pfn < PHYS_PFN(memblock_end_of_DRAM()); pfn++) {
		u64 *p;

		if (!pfn_valid(pfn) || !kpkeys_pgtable_cache_owns(pfn_to_page(pfn)))
			continue;
		nr++;
		p = page_address(pfn_to_page(pfn));
		/* Keep the value, in case the write succeeds. */
		open += !copy_to_kernel_nofault(p, &(u64){ *p }, sizeof(*p));
	}
	KUNIT_EXPECT_GT(test, nr, 0);
	KUNIT_EXPECT_EQ(test, open, 0);
}

/* Nothing uses the lists of free pages. */
static void attacker_test_struct_page(struct kunit *test)
{
	struct page *page = alloc_page(GFP_KERNEL);
	struct ptdesc *tables[64] = { };
	struct page *forged[ARRAY_SIZE(tables)] = { };
	int i, nr = 0;

	KUNIT_ASSERT_NOT_NULL(test, page);
	for (i = 0; i < ARRAY_SIZE(tables); i++)
		tables[i] = pagetable_alloc(GFP_KERNEL, 0);
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		if (!tables[i])
			continue;
		if (i % 2)
			continue;
		pagetable_free(tables[i]);
		if (!protected()) {
			tables[i] = NULL;
			continue;
		}
		/* Try to make a page of the attacker the next table. */
		ptdesc_page(tables[i])->lru.next = &page->lru;
		ptdesc_page(tables[i])->lru.prev = &page->lru;
		set_page_private(ptdesc_page(tables[i]), (unsigned long)page);
		forged[i] = ptdesc_page(tables[i]);
		tables[i] = NULL;
	}
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		if (!tables[i])
			tables[i] = pagetable_alloc(GFP_KERNEL, 0);
		if (!tables[i])
			continue;
		nr += ptdesc_page(tables[i]) == page;
		if (protected())
			KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_owns(ptdesc_page(tables[i])));
	}
	KUNIT_EXPECT_EQ(test, nr, 0);
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		if (forged[i])
			set_page_private(forged[i], 0);
		if (tables[i])
			pagetable_free(tables[i]);
	}
	__free_page(page);
}

/* A table that is freed with a forged order must not become ordinary memory. */
static void attacker_test_forged_order(struct kunit *test)
{
	struct attacker *a = test->priv;

	if (!protected())
		kunit_skip(test, "page tables are not protected");

	KUNIT_EXPECT_EQ(test, kpkeys_unprotect_pgtable(a->table, 0), -EPERM);
	EXPECT_STOPPED(test);
}

#ifdef CONFIG_KPKEYS_SPLIT_RESERVE
/* A reserve has a page that was not set aside for page tables. */
static void attacker_test_reserve(struct kunit *test)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);
	struct page *page = alloc_page(GFP_KERNEL);
	struct ptdesc *ptdesc;

	KUNIT_ASSERT_NOT_NULL(test, page);
	if (!protected()) {
		__free_page(page);
		kunit_skip(test, "any page may become a table");
	}
	KUNIT_EXPECT_EQ(test, kpkeys_split_reserve_fill(&reserve, 1), 0);
	ptdesc = list_first_entry(&reserve.pages, struct ptdesc, pt_list);
	list_replace_init(&ptdesc->pt_list, &page_ptdesc(page)->pt_list);
	KUNIT_EXPECT_FALSE(test, kpkeys_may_become_pgtable(pagetable_alloc_split(&reserve)));
	KUNIT_EXPECT_TRUE(test, kpkeys_may_become_pgtable(ptdesc));
	pagetable_free(ptdesc);
	KUNIT_EXPECT_FALSE(test, kpkeys_may_become_pgtable(ptdesc));
	__free_page(page);
}

/* Two pages inside of a block that must be split for them, or 0; @blocks: to be freed. */
static unsigned long unsplit_pages(struct page *blocks[], unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		unsigned long start;

		blocks[i] = alloc_pages(GFP_KERNEL | __GFP_NOWARN, PMD_SHIFT - PAGE_SHIFT);
		start = blocks[i] ? (unsigned long)page_address(blocks[i]) + PAGE_SIZE : 0;
		if (start && split_kernel_leaf_mapping_demand(start, start + 2 * PAGE_SIZE))
			return start;
	}

	return 0;
}

/* A split that is given such a reserve fails, and changes nothing. */
static void attacker_test_split(struct kunit *test)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);
	struct page *blocks[16] = { };
	unsigned long start, end;
	unsigned int demand, i;

	if (!protected() || PMD_SHIFT - PAGE_SHIFT > MAX_PAGE_ORDER)
		kunit_skip(test, "page tables are not protected, or no block is free");
	start = unsplit_pages(blocks, ARRAY_SIZE(blocks));
	end = start + 2 * PAGE_SIZE;
	if (start) {
		demand = split_kernel_leaf_mapping_demand(start, end);
		KUNIT_EXPECT_EQ(test, -EINVAL,
				split_kernel_leaf_mapping_reserve(start + 1, end, &reserve));
		/* Pages of the block itself: nobody else has them. */
		for (i = 0; i < demand; i++)
			kpkeys_split_reserve_add(&reserve,
						 page_ptdesc(virt_to_page(end + i * PAGE_SIZE)));
		KUNIT_EXPECT_EQ(test, -ENOMEM,
				split_kernel_leaf_mapping_reserve(start, end, &reserve));
		KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping_demand(start, end), demand);
		while (reserve.nr)
			pagetable_alloc_split(&reserve);
	}
	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		if (blocks[i])
			__free_pages(blocks[i], PMD_SHIFT - PAGE_SHIFT);
	}
	if (!start)
		kunit_skip(test, "no block has to be split");
}
#endif

/* -- Attributes and other mappings of a table ----------------------------- */

static void attacker_test_attributes(struct kunit *test)
{
	struct attacker *a = test->priv;
	struct page *page = virt_to_page(a->table);
	int want = protected() ? -EPERM : 0;

	if (!can_set_direct_map())
		kunit_skip(test, "the direct map cannot be changed");

	KUNIT_EXPECT_EQ(test, set_direct_map_default_noflush(page), want);
	KUNIT_EXPECT_EQ(test, set_direct_map_invalid_noflush(page), want);
	KUNIT_EXPECT_EQ(test, set_direct_map_default_noflush(page), want);
	KUNIT_EXPECT_EQ(test, set_direct_map_valid_noflush(page, 1, false), want);
	KUNIT_EXPECT_EQ(test, set_direct_map_valid_noflush(page, 1, true), want);
	KUNIT_EXPECT_EQ(test, set_memory_valid((unsigned long)a->table, 1, 0), want);
	KUNIT_EXPECT_EQ(test, set_memory_valid((unsigned long)a->table, 1, 1), want);
	/* These work on vmalloc areas only. */
	KUNIT_EXPECT_EQ(test, set_memory_rw((unsigned long)a->table, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, set_memory_x((unsigned long)a->table, 1), -EINVAL);
	flush_tlb_kernel_range((unsigned long)a->table, (unsigned long)a->table + PAGE_SIZE);
	EXPECT_STOPPED(test);
}

/* A table takes the place of a page of a vmalloc area. */
static void attacker_test_vmalloc_pages(struct kunit *test)
{
	struct attacker *a = test->priv;
	void *area = vmalloc(PAGE_SIZE);
	struct vm_struct *vm = find_vm_area(area);
	struct page *was;

	KUNIT_ASSERT_NOT_NULL(test, vm);
	was = vm->pages[0];
	vm->pages[0] = virt_to_page(a->table);
	KUNIT_EXPECT_EQ(test, set_memory_ro((unsigned long)area, 1),
			protected() && rodata_full ? -EPERM : 0);
	KUNIT_EXPECT_EQ(test, set_memory_rw((unsigned long)area, 1),
			protected() && rodata_full ? -EPERM : 0);
	EXPECT_STOPPED(test);
	vm->pages[0] = was;
	vfree(area);
}

static void attacker_test_vmap(struct kunit *test)
{
	struct attacker *a = test->priv;
	struct page *page = virt_to_page(a->table);
	u64 val = 0;
	void *p;

	p = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	if (p)
		KUNIT_EXPECT_EQ(test, copy_to_kernel_nofault(p, &val, sizeof(val)), 0);
	KUNIT_EXPECT_EQ(test, !p, protected());
	vunmap(p);

	p = vm_map_ram(&page, 1, NUMA_NO_NODE);
	if (p)
		KUNIT_EXPECT_EQ(test, copy_to_kernel_nofault(p, &val, sizeof(val)), 0);
	KUNIT_EXPECT_EQ(test, !p, protected());
	if (p)
		vm_unmap_ram(p, 1);

	/* memremap() returns the linear map. */
	p = memremap(__pa(a->table), PAGE_SIZE, MEMREMAP_WB);
	KUNIT_ASSERT_NOT_NULL(test, p);
	KUNIT_EXPECT_EQ(test, copy_to_kernel_nofault(p, &val, sizeof(val)),
			protected() ? -EFAULT : 0);
	memunmap(p);
}

/* ioremap() refuses all memory, and so does memremap() with other attributes. */
static void attacker_test_ioremap(struct kunit *test)
{
	struct attacker *a = test->priv;

	kunit_warning_suppress(test) {
		KUNIT_EXPECT_NULL(test, (void __force *)ioremap(__pa(a->table), PAGE_SIZE));
		KUNIT_EXPECT_NULL(test, memremap(__pa(a->table), PAGE_SIZE, MEMREMAP_WT));
	}
}

/* The address of a probe is changed, for example. It is patched through the fixmap. */
static void attacker_test_text_poking(struct kunit *test)
{
	struct attacker *a = test->priv;
	int want = protected() ? -EFAULT : 0;

	KUNIT_EXPECT_EQ(test, aarch64_insn_write(a->table, aarch64_insn_gen_nop()), want);
	KUNIT_EXPECT_EQ(test, aarch64_insn_write_literal_u64(a->table, -1), want);
	KUNIT_EXPECT_EQ(test, READ_ONCE(*a->table), protected() ? 0 : -1);
}

/* A page of a kexec segment is a page table. Segments are written through kmap(). */
static void attacker_test_kexec(struct kunit *test)
{
	struct attacker *a = test->priv;
	u64 val = 0;
	void *p;

	p = kmap_local_page(virt_to_page(a->table));
	KUNIT_EXPECT_EQ(test, copy_to_kernel_nofault(p, &val, sizeof(val)),
			protected() ? -EFAULT : 0);
	kunmap_local(p);
}

/* A file mapping of /dev/mem. */
static void attacker_test_dev_mem(struct kunit *test)
{
	struct attacker *a = test->priv;

	if (!IS_ENABLED(CONFIG_STRICT_DEVMEM))
		kunit_skip(test, "needs CONFIG_STRICT_DEVMEM");

	KUNIT_EXPECT_FALSE(test, devmem_is_allowed(PHYS_PFN(__pa(a->table))));
}

/* -- Roots ------------------------------------------------------------------ */

/*
 * The attacker's own page of data, which is a table of all levels at once: its first
 * entry points to the page itself, and its second maps the table under attack.
 */
static u64 *forged_table(struct kunit *test)
{
	struct attacker *a = test->priv;
	u64 *data = (u64 *)__get_free_page(GFP_KERNEL | __GFP_ZERO);

	KUNIT_ASSERT_NOT_NULL(test, data);
	data[0] = pmd_val(__pmd(__phys_to_pmd_val(__pa(data)) | PMD_TYPE_TABLE));
	data[1] = pte_val(pte_mkdirty(pfn_pte(PHYS_PFN(__pa(a->table)), PAGE_SHARED)));

	return data;
}

/* Run with mm->pgd changed to @root, and store to the table through user addresses. */
static void try_root(struct kunit *test, void *root, bool succeeds)
{
	unsigned long refused = vm_event(KPKEYS_ROOT_REFUSED);
	u64 val = 0x6b, __user *uaddr = (u64 __user *)PAGE_SIZE;
	struct attacker *a = test->priv;
	pgd_t *pgd = a->mm->pgd;
	unsigned long left;
	u64 entry;

	/* So that there is a switch. */
	kthread_use_mm(a->other);
	kthread_unuse_mm(a->other);

	WRITE_ONCE(a->mm->pgd, root);
	kthread_use_mm(a->mm);
	left = copy_to_user(uaddr, &val, sizeof(val));
	kthread_unuse_mm(a->mm);
	/* Code that changes page tables would begin here. */
	entry = READ_ONCE(*(u64 *)pgd_offset(a->mm, PAGE_SIZE));
	WRITE_ONCE(a->mm->pgd, pgd);

	kthread_use_mm(a->other);
	kthread_unuse_mm(a->other);

	KUNIT_EXPECT_EQ(test, left, succeeds ? 0 : sizeof(val));
	KUNIT_EXPECT_EQ(test, READ_ONCE(*a->table), succeeds ? val : 0);
	KUNIT_EXPECT_EQ(test, !!entry, succeeds);
	/* Each access of copy_to_user(), and the walk. */
	if (succeeds)
		KUNIT_EXPECT_EQ(test, vm_event(KPKEYS_ROOT_REFUSED) - refused, 0);
	else
		KUNIT_EXPECT_GE(test, vm_event(KPKEYS_ROOT_REFUSED) - refused, 2);
}

/* mm->pgd points to data of the attacker. */
static void attacker_test_root_data(struct kunit *test)
{
	u64 *data = forged_table(test);

	try_root(test, data, !protected());
	free_page((unsigned long)data);
}

/* mm->pgd points to a last-level table, of which the first entry maps the data. */
static void attacker_test_root_level(struct kunit *test)
{
	struct ptdesc *ptdesc = pagetable_alloc(GFP_KERNEL | __GFP_ZERO, 0);
	u64 *data = forged_table(test);

	KUNIT_ASSERT_NOT_NULL(test, ptdesc);
	scoped_guard(kpkeys_hardened_pgtables)
		WRITE_ONCE(*(u64 *)ptdesc_address(ptdesc),
			   pte_val(pfn_pte(PHYS_PFN(__pa(data)), PAGE_SHARED)));
	try_root(test, ptdesc_address(ptdesc), !protected());
	/* It is not freed as a root, either. */
	if (protected() && PGD_SIZE == PAGE_SIZE) {
		struct attacker *a = test->priv;

		pgd_free(a->mm, ptdesc_address(ptdesc));
		KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_in_use(ptdesc_page(ptdesc)));
	}
	pagetable_free(ptdesc);
	free_page((unsigned long)data);
}

/*
 * mm->pgd points to a root that was freed. Its content is still there, as the page has
 * no new user.
 */
static void attacker_test_root_freed(struct kunit *test)
{
	struct attacker *a = test->priv;
	struct mm_struct *mm;
	u64 *data;
	pgd_t *pgd;

	if (!protected())
		kunit_skip(test, "page tables are not protected");

	data = forged_table(test);
	mm = mm_alloc();
	KUNIT_ASSERT_NOT_NULL(test, mm);
	pgd = mm->pgd;
	scoped_guard(kpkeys_hardened_pgtables)
		WRITE_ONCE(*(u64 *)pgd, data[0]);
	KUNIT_EXPECT_TRUE(test, kpkeys_is_root(pgd));
	mm->pgd = a->mm->pgd;
	pgd_free(mm, pgd);
	KUNIT_EXPECT_FALSE(test, kpkeys_is_root(pgd));
	try_root(test, pgd, false);
	mm->pgd = pgd_alloc(mm);
	mmput(mm);
	free_page((unsigned long)data);
}

/* A root is freed as if it were another table, and is used for a split. */
static void attacker_test_root_is_kept(struct kunit *test)
{
	struct attacker *a = test->priv;
	pgd_t *pgd = a->mm->pgd;

	if (!protected())
		kunit_skip(test, "page tables are not protected");

	KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_free(virt_to_page(pgd)));
	KUNIT_EXPECT_TRUE(test, kpkeys_is_root(pgd));
	KUNIT_EXPECT_FALSE(test, kpkeys_may_become_pgtable(virt_to_ptdesc(pgd)));
	/* A part of it, and a pfn of which frame_of() ignores the highest bit. */
	KUNIT_EXPECT_FALSE(test, kpkeys_is_root((void *)pgd + PAGE_SIZE / 2));
	KUNIT_EXPECT_FALSE(test, kpkeys_pgtable_cache_is_root(PHYS_PFN(__pa(pgd)) | BIT(45)));
	KUNIT_EXPECT_FALSE(test, kpkeys_pgtable_cache_del_root(virt_to_page(pgd) + BIT(45)));
	KUNIT_EXPECT_TRUE(test, kpkeys_is_root(pgd));
}

/* The root is that of the other half of the address space. */
static void attacker_test_root_of_kernel(struct kunit *test)
{
	unsigned long refused = vm_event(KPKEYS_ROOT_REFUSED);
	struct attacker *a = test->priv;
	pgd_t *pgd = a->mm->pgd, *root;

	WRITE_ONCE(a->mm->pgd, lm_alias(init_mm.pgd));
	root = pgd_offset(a->mm, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, root == a->mm->pgd, !protected());
	WRITE_ONCE(a->mm->pgd, pgd);
	/* As if a VMA had the address. */
	root = pgd_offset(a->mm, PAGE_OFFSET);
	KUNIT_EXPECT_EQ(test, PTR_ALIGN_DOWN(root, PAGE_SIZE) == pgd, !protected());
	KUNIT_EXPECT_EQ(test, vm_event(KPKEYS_ROOT_REFUSED) - refused, protected() ? 2 : 0);
}

/* -- What the administrator sees ------------------------------------------ */

static void attacker_test_is_seen(struct kunit *test)
{
	unsigned long stopped = vm_event(KPKEYS_WRITE_STOPPED);

	EXPECT_STOPPED(test);
	KUNIT_EXPECT_EQ(test, vm_event(KPKEYS_WRITE_STOPPED) - stopped, protected());
}

/* ------------------------------------------------------------------------- */

static void free_table(void *data)
{
	pagetable_free(data);
}

static void free_mm(void *data)
{
	mmput(data);
}

static int new_mm(struct kunit *test, struct mm_struct **mm)
{
	*mm = mm_alloc();

	return *mm ? kunit_add_action_or_reset(test, free_mm, *mm) : -ENOMEM;
}

static int attacker_test_init(struct kunit *test)
{
	struct attacker *a = kunit_kzalloc(test, sizeof(*a), GFP_KERNEL);

	if (!a)
		return -ENOMEM;
	test->priv = a;
	a->ptdesc = pagetable_alloc(GFP_KERNEL | __GFP_ZERO, 0);
	if (!a->ptdesc)
		return -ENOMEM;
	a->table = ptdesc_address(a->ptdesc);

	return kunit_add_action_or_reset(test, free_table, a->ptdesc) ?:
	       new_mm(test, &a->mm) ?: new_mm(test, &a->other);
}

static struct kunit_case attacker_test_cases[] = {
	KUNIT_CASE(attacker_test_pt_regs),
	KUNIT_CASE(attacker_test_sleeper),
	KUNIT_CASE(attacker_test_other_stack),
	KUNIT_CASE(attacker_test_stale_entry),
	KUNIT_CASE(attacker_test_full_table),
	KUNIT_CASE(attacker_test_lazy_mmu),
	KUNIT_CASE(attacker_test_probe),
	KUNIT_CASE(attacker_test_pages_of_the_cache),
	KUNIT_CASE(attacker_test_struct_page),
	KUNIT_CASE(attacker_test_forged_order),
#ifdef CONFIG_KPKEYS_SPLIT_RESERVE
	KUNIT_CASE(attacker_test_reserve),
	KUNIT_CASE(attacker_test_split),
#endif
	KUNIT_CASE(attacker_test_attributes),
	KUNIT_CASE(attacker_test_vmalloc_pages),
	KUNIT_CASE(attacker_test_vmap),
	KUNIT_CASE(attacker_test_ioremap),
	KUNIT_CASE(attacker_test_text_poking),
	KUNIT_CASE(attacker_test_kexec),
	KUNIT_CASE(attacker_test_dev_mem),
	KUNIT_CASE(attacker_test_root_data),
	KUNIT_CASE(attacker_test_root_level),
	KUNIT_CASE(attacker_test_root_freed),
	KUNIT_CASE(attacker_test_root_is_kept),
	KUNIT_CASE(attacker_test_root_of_kernel),
	KUNIT_CASE(attacker_test_is_seen),
	{}
};

static struct kunit_suite attacker_test_suite = {
	.name = "kpkeys_attacker",
	.init = attacker_test_init,
	.test_cases = attacker_test_cases,
};

kunit_test_suite(attacker_test_suite);

MODULE_DESCRIPTION("KUnit tests that attack protected page tables");
MODULE_LICENSE("GPL");
