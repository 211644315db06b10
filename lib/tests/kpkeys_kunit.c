// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of kernel pkeys: which code may write to a page with a privileged
 * pkey, and when. The tests find out by writing to such a page.
 */
#include <kunit/test.h>

#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/kpkeys.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/rtmutex.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/set_memory.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/uaccess.h>

#include <uapi/linux/sched/types.h>

#define SPIN_LIMIT_NS	(5ULL * NSEC_PER_SEC)

/* Spin without sleeping until @cond is true; false after a timeout. */
#define spin_until(cond)						\
({									\
	u64 __end = ktime_get_mono_fast_ns() + SPIN_LIMIT_NS;		\
	bool __ok;							\
									\
	while (!(__ok = (cond)) && ktime_get_mono_fast_ns() < __end)	\
		cpu_relax();						\
	__ok;								\
})

struct kpkeys_test {
	/* The page that has the privileged pkey in every test. */
	unsigned long *page;
};

/* Try to write @val: 0 if it was written, -EFAULT if the write was denied. */
static int probe_write(unsigned long *p, unsigned long val)
{
	return copy_to_kernel_nofault(p, &val, sizeof(val));
}

static int probe(struct kunit *test)
{
	struct kpkeys_test *kt = test->priv;

	return probe_write(kt->page, 0x600d);
}

#define EXPECT_CLOSED(test)	KUNIT_EXPECT_EQ(test, probe(test), -EFAULT)
#define EXPECT_OPEN(test)	KUNIT_EXPECT_EQ(test, probe(test), 0)

/* Can this CPU open a window, and is it closed before and after? */
static void check_this_cpu(struct kunit *test)
{
	EXPECT_CLOSED(test);
	scoped_guard(kpkeys_pgtables)
		EXPECT_OPEN(test);
	EXPECT_CLOSED(test);
}

/* -- Helper threads that run a function on a CPU of choice ---------------- */

struct remote {
	struct kunit *test;
	int (*fn)(struct remote *r);
	void *arg;
	int ret;
	struct completion done;
	struct task_struct *task;
	/* For functions that talk with the test while they run. */
	bool ready;
	bool go;
};

static int remote_thread(void *data)
{
	struct remote *r = data;

	r->ret = r->fn(r);
	complete(&r->done);
	return 0;
}

/* Create a thread for r->fn. It must be woken up once. */
static void remote_create(struct kunit *test, struct remote *r, int cpu,
			  int (*fn)(struct remote *r), bool fifo)
{
	r->test = test;
	r->fn = fn;
	init_completion(&r->done);
	r->task = kthread_create(remote_thread, r, "kpkeys_kunit/%d", cpu);
	KUNIT_ASSERT_FALSE(test, IS_ERR(r->task));
	get_task_struct(r->task);
	kthread_bind(r->task, cpu);
	if (fifo)
		sched_set_fifo(r->task);
}

/* Run r->fn in a new thread. remote_wait() must follow. */
static void remote_start(struct kunit *test, struct remote *r, int cpu,
			 int (*fn)(struct remote *r))
{
	remote_create(test, r, cpu, fn, false);
	wake_up_process(r->task);
}

static int remote_wait(struct remote *r)
{
	wait_for_completion(&r->done);
	kthread_stop_put(r->task);
	return r->ret;
}

static int remote_probe(struct remote *r)
{
	return probe(r->test);
}

static int remote_check_cpu(struct remote *r)
{
	check_this_cpu(r->test);
	return 0;
}

static int run_on(struct kunit *test, int cpu, int (*fn)(struct remote *r))
{
	struct remote r = {};

	remote_start(test, &r, cpu, fn);
	return remote_wait(&r);
}

/* Pin the test to its CPU, and return another CPU that is online. */
static void pin(struct kunit *test, int *here, int *other)
{
	KUNIT_ASSERT_EQ(test, 0,
			set_cpus_allowed_ptr(current, cpumask_of(raw_smp_processor_id())));
	*here = raw_smp_processor_id();
	if (!other)
		return;

	*other = cpumask_any_but(cpu_online_mask, *here);
	if (*other >= nr_cpu_ids)
		kunit_skip(test, "needs a second CPU");
}

/* -- One thread ----------------------------------------------------------- */

static void kpkeys_test_closed_by_default(struct kunit *test)
{
	struct kpkeys_test *kt = test->priv;
	unsigned long val = 0;

	scoped_guard(kpkeys_pgtables)
		WRITE_ONCE(*kt->page, 0x1234);

	KUNIT_EXPECT_EQ(test, probe_write(kt->page, 0xbad), -EFAULT);
	KUNIT_EXPECT_EQ(test, 0,
			copy_from_kernel_nofault(&val, kt->page, sizeof(val)));
	KUNIT_EXPECT_EQ(test, val, 0x1234);
}

static void kpkeys_test_open_inside(struct kunit *test)
{
	struct kpkeys_test *kt = test->priv;
	struct kpkeys_state state;

	EXPECT_CLOSED(test);
	KUNIT_EXPECT_TRUE(test, kpkeys_in_context(KPKEYS_CTX_DEFAULT));

	state = kpkeys_enter_context(KPKEYS_CTX_PGTABLES);
	KUNIT_EXPECT_EQ(test, probe_write(kt->page, 0x5678), 0);
	KUNIT_EXPECT_TRUE(test, kpkeys_in_context(KPKEYS_CTX_PGTABLES));
	KUNIT_EXPECT_FALSE(test, kpkeys_in_context(KPKEYS_CTX_DEFAULT));
	kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &state);

	EXPECT_CLOSED(test);
	KUNIT_EXPECT_EQ(test, READ_ONCE(*kt->page), 0x5678);
	KUNIT_EXPECT_FALSE(test, kpkeys_in_context(KPKEYS_CTX_PGTABLES));
}

static void kpkeys_test_nesting(struct kunit *test)
{
	struct kpkeys_state outer, inner, closed;

	outer = kpkeys_enter_context(KPKEYS_CTX_PGTABLES);
	{
		inner = kpkeys_enter_context(KPKEYS_CTX_PGTABLES);
		EXPECT_OPEN(test);
		kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &inner);
		EXPECT_OPEN(test);

		closed = kpkeys_enter_context(KPKEYS_CTX_DEFAULT);
		EXPECT_CLOSED(test);
		{
			inner = kpkeys_enter_context(KPKEYS_CTX_PGTABLES);
			EXPECT_OPEN(test);
			kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &inner);
		}
		EXPECT_CLOSED(test);
		kpkeys_leave_context(KPKEYS_CTX_DEFAULT, &closed);
		EXPECT_OPEN(test);
	}
	kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &outer);
	EXPECT_CLOSED(test);
}

/* The register is written only if its value changes. */
static void kpkeys_test_no_needless_write(struct kunit *test)
{
	struct kpkeys_state outer, inner;

	outer = kpkeys_enter_context(KPKEYS_CTX_DEFAULT);
	KUNIT_EXPECT_FALSE(test, outer.changed);
	kpkeys_leave_context(KPKEYS_CTX_DEFAULT, &outer);

	outer = kpkeys_enter_context(KPKEYS_CTX_PGTABLES);
	inner = kpkeys_enter_context(KPKEYS_CTX_PGTABLES);
	KUNIT_EXPECT_TRUE(test, outer.changed);
	KUNIT_EXPECT_FALSE(test, inner.changed);
	kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &inner);
	kpkeys_leave_context(KPKEYS_CTX_PGTABLES, &outer);
}

static void kpkeys_test_leave_restores_exactly(struct kunit *test)
{
	u64 before, inside, after;

	before = arch_kpkeys_read();
	scoped_guard(kpkeys_pgtables) {
		inside = arch_kpkeys_read();
		scoped_guard(kpkeys_default)
			KUNIT_EXPECT_EQ(test, arch_kpkeys_read(), before);
		KUNIT_EXPECT_EQ(test, arch_kpkeys_read(), inside);
	}
	after = arch_kpkeys_read();

	KUNIT_EXPECT_NE(test, before, inside);
	KUNIT_EXPECT_EQ(test, before, after);
}

static void kpkeys_test_neighbours_untouched(struct kunit *test)
{
	struct kpkeys_test *kt = test->priv;
	unsigned long *buf;

	/* Four pages, the pkey on the middle two. */
	buf = (unsigned long *)kunit_kmalloc(test, 8 * PAGE_SIZE, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, buf);
	buf = PTR_ALIGN(buf, PAGE_SIZE);

#define PAGE(n)	(buf + (n) * (PAGE_SIZE / sizeof(*buf)))
	KUNIT_ASSERT_EQ(test, 0, set_memory_pkey((unsigned long)PAGE(1), 2,
						 KPKEYS_PKEY_PGTABLES));
	KUNIT_EXPECT_EQ(test, probe_write(PAGE(0), 0), 0);
	KUNIT_EXPECT_EQ(test, probe_write(PAGE(1), 0), -EFAULT);
	KUNIT_EXPECT_EQ(test, probe_write(PAGE(2), 0), -EFAULT);
	KUNIT_EXPECT_EQ(test, probe_write(PAGE(3) - 1, 0), -EFAULT);
	KUNIT_EXPECT_EQ(test, probe_write(PAGE(3), 0), 0);
	KUNIT_ASSERT_EQ(test, 0, set_memory_pkey((unsigned long)PAGE(1), 2,
						 KPKEYS_PKEY_DEFAULT));
	KUNIT_EXPECT_EQ(test, probe_write(PAGE(1), 0), 0);
	KUNIT_EXPECT_EQ(test, probe_write(PAGE(2), 0), 0);
#undef PAGE

	KUNIT_EXPECT_EQ(test, -EINVAL,
			set_memory_pkey((unsigned long)kt->page + 8, 1,
					KPKEYS_PKEY_PGTABLES));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			set_memory_pkey((unsigned long)kt->page, 0,
					KPKEYS_PKEY_PGTABLES));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			set_memory_pkey((unsigned long)kt->page, 1, -1));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			set_memory_pkey((unsigned long)kt->page, 1, 8));
	EXPECT_CLOSED(test);
}

/* -- Other threads and other CPUs ----------------------------------------- */

static void kpkeys_test_every_cpu(struct kunit *test)
{
	int cpu;

	for_each_online_cpu(cpu)
		run_on(test, cpu, remote_check_cpu);
}

static int remote_probe_while_open(struct remote *r)
{
	int ret;

	WRITE_ONCE(r->ready, true);
	if (!spin_until(READ_ONCE(r->go)))
		return -ETIMEDOUT;
	ret = probe(r->test);
	WRITE_ONCE(r->ready, false);
	return ret;
}

static void kpkeys_test_cpus_independent(struct kunit *test)
{
	struct remote r = {};
	bool seen, done;
	int here, other;

	pin(test, &here, &other);
	remote_start(test, &r, other, remote_probe_while_open);
	seen = spin_until(READ_ONCE(r.ready));

	scoped_guard(kpkeys_pgtables) {
		EXPECT_OPEN(test);
		WRITE_ONCE(r.go, true);
		done = spin_until(!READ_ONCE(r.ready));
		EXPECT_OPEN(test);
	}

	KUNIT_EXPECT_EQ(test, remote_wait(&r), -EFAULT);
	KUNIT_EXPECT_TRUE(test, seen);
	KUNIT_EXPECT_TRUE(test, done);
}

/* A thread that sleeps in a window loses it, and no other thread gets it. */
static void kpkeys_test_sleep_in_context(struct kunit *test)
{
	struct remote r = {};
	int here, ret;

	pin(test, &here, NULL);
	remote_create(test, &r, here, remote_probe, false);
	scoped_guard(kpkeys_pgtables) {
		EXPECT_OPEN(test);
		wake_up_process(r.task);
		ret = remote_wait(&r);
		/* The other thread may have finished before this one slept. */
		schedule_timeout_uninterruptible(1);
		EXPECT_CLOSED(test);
		/* It can be opened again. */
		scoped_guard(kpkeys_pgtables)
			EXPECT_OPEN(test);
	}
	KUNIT_EXPECT_EQ(test, ret, -EFAULT);
	check_this_cpu(test);
}

#ifdef CONFIG_RT_MUTEXES
static DEFINE_RT_MUTEX(busy_mutex);

static int remote_hold_mutex(struct remote *r)
{
	rt_mutex_lock(&busy_mutex);
	WRITE_ONCE(r->ready, true);
	while (!READ_ONCE(r->go))
		schedule_timeout_uninterruptible(1);
	/* The test sleeps until this one is done. */
	schedule_timeout_uninterruptible(2);
	rt_mutex_unlock(&busy_mutex);

	return 0;
}

/* The same if it waits for an rt_mutex, which has a way of its own into the scheduler. */
static void kpkeys_test_rt_mutex_in_context(struct kunit *test)
{
	struct remote r = {};
	int here;

	pin(test, &here, NULL);
	remote_start(test, &r, here, remote_hold_mutex);
	while (!READ_ONCE(r.ready))
		schedule_timeout_uninterruptible(1);
	scoped_guard(kpkeys_pgtables) {
		EXPECT_OPEN(test);
		WRITE_ONCE(r.go, true);
		rt_mutex_lock(&busy_mutex);
		EXPECT_CLOSED(test);
		rt_mutex_unlock(&busy_mutex);
	}
	KUNIT_EXPECT_EQ(test, remote_wait(&r), 0);
	check_this_cpu(test);
}
#endif

static int remote_sleep_open(struct remote *r)
{
	int ret;

	guard(kpkeys_pgtables)();
	ret = probe(r->test);
	WRITE_ONCE(r->ready, true);
	while (!READ_ONCE(r->go))
		schedule_timeout_uninterruptible(1);
	return ret ? -EIO : probe(r->test);
}

/* Conversely, the test does not find the window of a sleeping thread open. */
static void kpkeys_test_wake_into_context(struct kunit *test)
{
	struct remote r = {};
	int here;

	pin(test, &here, NULL);
	remote_start(test, &r, here, remote_sleep_open);
	while (!READ_ONCE(r.ready)) {
		EXPECT_CLOSED(test);
		schedule_timeout_uninterruptible(1);
	}
	check_this_cpu(test);
	WRITE_ONCE(r.go, true);
	KUNIT_EXPECT_EQ(test, remote_wait(&r), -EFAULT);
	EXPECT_CLOSED(test);
}

/* A thread of higher priority preempts the test inside a window. */
static void kpkeys_test_preempted_in_context(struct kunit *test)
{
	struct remote r = {};
	bool done;
	int here;

	if (!IS_ENABLED(CONFIG_PREEMPTION))
		kunit_skip(test, "needs CONFIG_PREEMPTION");

	pin(test, &here, NULL);
	remote_create(test, &r, here, remote_probe, true);
	scoped_guard(kpkeys_pgtables) {
		wake_up_process(r.task);
		done = spin_until(completion_done(&r.done));
		EXPECT_OPEN(test);
	}
	KUNIT_EXPECT_TRUE(test, done);
	KUNIT_EXPECT_EQ(test, remote_wait(&r), -EFAULT);
	EXPECT_CLOSED(test);
}

static int remote_migrate_open(struct remote *r)
{
	int from = raw_smp_processor_id(), ret;
	bool moved;

	guard(kpkeys_pgtables)();
	ret = probe(r->test);
	WRITE_ONCE(r->ready, true);
	moved = spin_until(raw_smp_processor_id() != from);
	if (!ret)
		ret = moved ? probe(r->test) : -ETIMEDOUT;
	WRITE_ONCE(r->ready, false);
	return spin_until(READ_ONCE(r->go)) ? ret : -ETIMEDOUT;
}

/* The window migrates with the thread. */
static void kpkeys_test_migrate_in_context(struct kunit *test)
{
	int here, other, round;

	if (!IS_ENABLED(CONFIG_PREEMPTION))
		kunit_skip(test, "needs CONFIG_PREEMPTION");

	pin(test, &here, &other);
	for (round = 0; round < 20; round++) {
		struct remote r = {};

		remote_start(test, &r, other, remote_migrate_open);
		KUNIT_EXPECT_TRUE(test, spin_until(READ_ONCE(r.ready)));
		KUNIT_EXPECT_EQ(test, 0, set_cpus_allowed_ptr(r.task, cpumask_of(here)));
		while (READ_ONCE(r.ready))
			schedule_timeout_uninterruptible(1);
		KUNIT_EXPECT_EQ(test, run_on(test, other, remote_probe), -EFAULT);
		EXPECT_CLOSED(test);
		WRITE_ONCE(r.go, true);
		KUNIT_EXPECT_EQ(test, remote_wait(&r), 0);
	}
}

static int new_thread(void *data)
{
	remote_thread(data);
	/* A thread has no caller to return to. */
	kthread_exit(0);
}

static void kpkeys_test_new_thread(struct kunit *test)
{
	struct remote r = { .test = test, .fn = remote_probe };
	pid_t pid;

	init_completion(&r.done);
	pid = kernel_thread(new_thread, &r, "kpkeys_kunit",
			    CLONE_FS | CLONE_FILES | SIGCHLD);
	KUNIT_ASSERT_GT(test, pid, 0);
	wait_for_completion(&r.done);
	KUNIT_EXPECT_EQ(test, r.ret, -EFAULT);
}

/*
 * A change of pkey must reach CPUs that have the old translation in their TLB.
 * The other CPU neither sleeps nor enters a context meanwhile, which might
 * empty its TLB as a side effect and hide a missing invalidation. It writes all the
 * time, so that an invalidation before the change does not help.
 */
static bool write_until_told(struct remote *r)
{
	probe_write(r->arg, 1);

	return READ_ONCE(r->go);
}

static int remote_write_warm(struct remote *r)
{
	unsigned long *p = r->arg, flags;
	int ret;

	local_irq_save(flags);
	WRITE_ONCE(*p, 1);
	WRITE_ONCE(r->ready, true);
	ret = spin_until(write_until_told(r)) ? probe_write(p, 2) : -ETIMEDOUT;
	local_irq_restore(flags);
	return ret;
}

static void kpkeys_test_pkey_change_seen_by_warm_tlb(struct kunit *test)
{
	struct kpkeys_test *kt = test->priv;
	int here, other, round, ret;

	pin(test, &here, &other);
	for (round = 0; round < 20; round++) {
		struct remote r = { .arg = kt->page };

		KUNIT_ASSERT_EQ(test, 0,
				set_memory_pkey((unsigned long)kt->page, 1,
						KPKEYS_PKEY_DEFAULT));
		remote_start(test, &r, other, remote_write_warm);
		spin_until(READ_ONCE(r.ready));
		ret = set_memory_pkey((unsigned long)kt->page, 1,
				      KPKEYS_PKEY_PGTABLES);
		WRITE_ONCE(r.go, true);
		KUNIT_EXPECT_EQ(test, remote_wait(&r), -EFAULT);
		KUNIT_ASSERT_EQ(test, ret, 0);
	}
	KUNIT_EXPECT_EQ(test, READ_ONCE(*kt->page), 1);
}

static void kpkeys_test_cpu_hotplug(struct kunit *test)
{
	int here, other, ret;

	if (!IS_ENABLED(CONFIG_HOTPLUG_CPU))
		kunit_skip(test, "needs CONFIG_HOTPLUG_CPU");

	pin(test, &here, &other);
	ret = remove_cpu(other);
	KUNIT_ASSERT_EQ(test, ret, 0);
	ret = add_cpu(other);
	KUNIT_ASSERT_EQ(test, ret, 0);
	run_on(test, other, remote_check_cpu);
	check_this_cpu(test);
}

/* -- Exceptions ----------------------------------------------------------- */

struct handler {
	struct kunit *test;
	struct hrtimer hrtimer;
	struct timer_list timer;
	struct irq_work irq_work;
	int ret;
	bool ran;
	bool irq;
};

static void handler_run(struct handler *h)
{
	h->ret = probe(h->test);
	h->irq = in_hardirq();
	/* A handler may open a window of its own. */
	scoped_guard(kpkeys_pgtables) {
		if (probe(h->test))
			h->ret = -EIO;
	}
	/* Pairs with wait_for_handler(), which reads the results above. */
	smp_store_release(&h->ran, true);
}

static bool wait_for_handler(struct handler *h)
{
	/* Pairs with handler_run(). */
	return spin_until(smp_load_acquire(&h->ran));
}

static enum hrtimer_restart handler_hrtimer(struct hrtimer *t)
{
	handler_run(container_of(t, struct handler, hrtimer));
	return HRTIMER_NORESTART;
}

static void handler_timer(struct timer_list *t)
{
	handler_run(container_of(t, struct handler, timer));
}

static void handler_irq_work(struct irq_work *w)
{
	handler_run(container_of(w, struct handler, irq_work));
}

static void kpkeys_test_interrupt_in_context(struct kunit *test)
{
	struct handler h = { .test = test };
	bool ran;
	int here;

	pin(test, &here, NULL);
	h.irq_work = IRQ_WORK_INIT_HARD(handler_irq_work);
	scoped_guard(kpkeys_pgtables) {
		irq_work_queue(&h.irq_work);
		ran = wait_for_handler(&h);
		EXPECT_OPEN(test);
	}
	irq_work_sync(&h.irq_work);
	KUNIT_EXPECT_TRUE(test, ran);
	KUNIT_EXPECT_TRUE(test, h.irq);
	KUNIT_EXPECT_EQ(test, h.ret, -EFAULT);
	EXPECT_CLOSED(test);
}

static void kpkeys_test_hrtimer_in_context(struct kunit *test)
{
	struct handler h = { .test = test };
	bool ran;
	int here;

	pin(test, &here, NULL);
	hrtimer_setup_on_stack(&h.hrtimer, handler_hrtimer, CLOCK_MONOTONIC,
			       HRTIMER_MODE_REL_PINNED_HARD);
	scoped_guard(kpkeys_pgtables) {
		hrtimer_start(&h.hrtimer, us_to_ktime(100),
			      HRTIMER_MODE_REL_PINNED_HARD);
		ran = wait_for_handler(&h);
		EXPECT_OPEN(test);
	}
	hrtimer_cancel(&h.hrtimer);
	destroy_hrtimer_on_stack(&h.hrtimer);
	KUNIT_EXPECT_TRUE(test, ran);
	KUNIT_EXPECT_EQ(test, h.ret, -EFAULT);
	EXPECT_CLOSED(test);
}

/* A softirq at the end of an interrupt that hits the window. */
static void kpkeys_test_timer_in_context(struct kunit *test)
{
	struct handler h = { .test = test };
	bool ran;
	int here;

	pin(test, &here, NULL);
	timer_setup_on_stack(&h.timer, handler_timer, TIMER_PINNED);
	scoped_guard(kpkeys_pgtables) {
		mod_timer(&h.timer, jiffies + 1);
		ran = wait_for_handler(&h);
		EXPECT_OPEN(test);
	}
	timer_delete_sync(&h.timer);
	timer_destroy_on_stack(&h.timer);
	KUNIT_EXPECT_TRUE(test, ran);
	KUNIT_EXPECT_FALSE(test, h.irq);
	KUNIT_EXPECT_EQ(test, h.ret, -EFAULT);
	EXPECT_CLOSED(test);
}

static struct handler tasklet_handler;

static void handler_tasklet(struct tasklet_struct *t)
{
	handler_run(&tasklet_handler);
}

static DECLARE_TASKLET(kpkeys_tasklet, handler_tasklet);

/* A softirq without an exception: local_bh_enable() runs it. */
static void kpkeys_test_softirq_in_context(struct kunit *test)
{
	int here;

	pin(test, &here, NULL);
	tasklet_handler = (struct handler){ .test = test };
	scoped_guard(kpkeys_pgtables) {
		local_bh_disable();
		tasklet_schedule(&kpkeys_tasklet);
		EXPECT_OPEN(test);
		local_bh_enable();
		EXPECT_OPEN(test);
	}
	tasklet_kill(&kpkeys_tasklet);
	KUNIT_EXPECT_TRUE(test, tasklet_handler.ran);
	KUNIT_EXPECT_EQ(test, tasklet_handler.ret, -EFAULT);
	EXPECT_CLOSED(test);
}

/* A fault inside a window is handled, and the window is restored. */
static void kpkeys_test_fault_in_context(struct kunit *test)
{
	unsigned long val;

	scoped_guard(kpkeys_pgtables) {
		KUNIT_EXPECT_EQ(test, -EFAULT,
				copy_from_kernel_nofault(&val, (void *)-PAGE_SIZE,
							 sizeof(val)));
		EXPECT_OPEN(test);
	}
	EXPECT_CLOSED(test);
}

/* -- What does not belong into a window ----------------------------------- */

enum { NOTHING, OBJECT, PAGE, USER_ACCESS };

static int warnings_inside(struct kunit *test, int what)
{
	struct kunit_suppressed_warning *warnings = kunit_start_suppress_warning(test);
	unsigned long page = 0;
	void *object = NULL;
	int nr, ret = 0;
	u32 val;

	scoped_guard(kpkeys_pgtables) {
		switch (what) {
		case OBJECT:
			object = kmalloc(8, GFP_KERNEL);
			break;
		case PAGE:
			page = __get_free_page(GFP_KERNEL);
			break;
		case USER_ACCESS:
			if (copy_from_user(&val, (void __user *)PAGE_SIZE, sizeof(val)))
				ret = -EFAULT;
			break;
		}
	}
	nr = kunit_suppressed_warning_count(warnings);
	kunit_end_suppress_warning(test, warnings);
	kfree(object);
	free_page(page);
	/* There is no user memory. */
	KUNIT_EXPECT_EQ(test, ret, what == USER_ACCESS ? -EFAULT : 0);

	return nr;
}

/* Debug builds notice it. */
static void kpkeys_test_asserted(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_DEBUG_VM) || !IS_ENABLED(CONFIG_BUG))
		kunit_skip(test, "needs CONFIG_DEBUG_VM and CONFIG_BUG");

	KUNIT_EXPECT_EQ(test, warnings_inside(test, NOTHING), 0);
	KUNIT_EXPECT_GT(test, warnings_inside(test, OBJECT), 0);
	KUNIT_EXPECT_GT(test, warnings_inside(test, PAGE), 0);
	KUNIT_EXPECT_GT(test, warnings_inside(test, USER_ACCESS), 0);
}

/* ------------------------------------------------------------------------- */

static void kpkeys_test_free_page(void *data)
{
	unsigned long page = (unsigned long)data;

	/* The page allocator must not get a page that is read-only. */
	if (set_memory_pkey(page, 1, KPKEYS_PKEY_DEFAULT))
		pr_err("page leaked, its pkey could not be restored\n");
	else
		free_page(page);
}

static void kpkeys_test_unpin(void *data)
{
	set_cpus_allowed_ptr(current, cpu_possible_mask);
}

static int kpkeys_test_init(struct kunit *test)
{
	struct kpkeys_test *kt;
	unsigned long page;
	int ret;

	if (!arch_supports_kpkeys())
		kunit_skip(test, "no kpkeys on this machine");

	kt = kunit_kzalloc(test, sizeof(*kt), GFP_KERNEL);
	if (!kt)
		return -ENOMEM;
	test->priv = kt;

	page = get_zeroed_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	kt->page = (unsigned long *)page;
	ret = kunit_add_action_or_reset(test, kpkeys_test_free_page,
					(void *)page);
	if (ret)
		return ret;
	ret = kunit_add_action_or_reset(test, kpkeys_test_unpin, NULL);
	if (ret)
		return ret;

	return set_memory_pkey(page, 1, KPKEYS_PKEY_PGTABLES);
}

static struct kunit_case kpkeys_test_cases[] = {
	KUNIT_CASE(kpkeys_test_closed_by_default),
	KUNIT_CASE(kpkeys_test_open_inside),
	KUNIT_CASE(kpkeys_test_nesting),
	KUNIT_CASE(kpkeys_test_no_needless_write),
	KUNIT_CASE(kpkeys_test_leave_restores_exactly),
	KUNIT_CASE(kpkeys_test_neighbours_untouched),
	KUNIT_CASE(kpkeys_test_every_cpu),
	KUNIT_CASE(kpkeys_test_cpus_independent),
	KUNIT_CASE(kpkeys_test_sleep_in_context),
#ifdef CONFIG_RT_MUTEXES
	KUNIT_CASE(kpkeys_test_rt_mutex_in_context),
#endif
	KUNIT_CASE(kpkeys_test_wake_into_context),
	KUNIT_CASE(kpkeys_test_preempted_in_context),
	KUNIT_CASE(kpkeys_test_migrate_in_context),
	KUNIT_CASE(kpkeys_test_new_thread),
	KUNIT_CASE(kpkeys_test_pkey_change_seen_by_warm_tlb),
	KUNIT_CASE(kpkeys_test_cpu_hotplug),
	KUNIT_CASE(kpkeys_test_interrupt_in_context),
	KUNIT_CASE(kpkeys_test_hrtimer_in_context),
	KUNIT_CASE(kpkeys_test_timer_in_context),
	KUNIT_CASE(kpkeys_test_softirq_in_context),
	KUNIT_CASE(kpkeys_test_fault_in_context),
	KUNIT_CASE(kpkeys_test_asserted),
	{}
};

static struct kunit_suite kpkeys_test_suite = {
	.name = "kpkeys",
	.init = kpkeys_test_init,
	.test_cases = kpkeys_test_cases,
};

kunit_test_suite(kpkeys_test_suite);

MODULE_DESCRIPTION("KUnit tests of kernel pkeys");
MODULE_LICENSE("GPL");
