// SPDX-License-Identifier: GPL-2.0-only
/*
 * A QEMU plugin that counts what a guest executes between two marks: all
 * instructions, some kinds of them, arrivals at some addresses, and the
 * instructions of each function, and how long the window of kpkeys is open.
 *
 * The guest marks by hints that do nothing: BEGIN and END switch counting on and
 * off, REPORT writes one line to the file "out" and clears the counts. From LOCKED
 * to UNLOCKED the lock is held that serialises splits of the direct map.
 *
 *	-plugin counter.so,out=FILE,symbols=FILE,functions=FILE
 *
 * "symbols" has lines "CLASS ADDRESS"; a class is counted each time one of its
 * addresses is executed. "functions" has lines "NAME ADDRESS" in the order of the
 * addresses; a function is written as NAME() if it was executed. For one virtual CPU.
 *
 * The interface is declared here, in its version 7: the header that has it is not
 * packaged.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} plugin_u64;
enum { INLINE_ADD_U64 = 0 };
enum { CB_NO_REGS = 0, CB_R_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
		void (*cb)(struct qemu_plugin_tb *tb, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t len);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
		void (*cb)(unsigned int vcpu, void *data), int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn,
		int op, plugin_u64 entry, uint64_t imm);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t size);
uint64_t qemu_plugin_u64_sum(plugin_u64 entry);
int qemu_plugin_num_vcpus(void);

/* The first members of the descriptor; how large it is depends on the version. */
struct register_descriptor {
	struct qemu_plugin_register *handle;
	const char *name;
};

/* Of GLib, which the emulator is linked with. */
struct array {
	char *data;
	unsigned int len;
};
unsigned int g_array_get_element_size(struct array *array);
struct array *g_byte_array_new(void);
struct array *g_byte_array_set_size(struct array *array, unsigned int len);

struct array *qemu_plugin_get_registers(void);
int qemu_plugin_read_register(struct qemu_plugin_register *handle, struct array *buf);

EXPORT int qemu_plugin_version = 7;

/* hint #112 to #116 */
#define HINT(imm)	(0xd503201fu | (imm) << 5)
enum { BEGIN = 112, END, REPORT, LOCKED, UNLOCKED };

#define MAX_CLASSES	65536
#define MAX_SYMBOLS	256

static struct {
	char name[72];
	plugin_u64 count;
	uint64_t at_begin, sum;
} class[MAX_CLASSES];
static int nr_classes;

static struct {
	uint64_t addr;
	int class;
} symbol[MAX_SYMBOLS];
static int nr_symbols;

/* Functions are the classes from first_function on, by address. */
static uint64_t function[MAX_CLASSES];
static int first_function;

static struct qemu_plugin_scoreboard *board;
static FILE *out;

static int new_class(const char *name, const char *suffix)
{
	int i = nr_classes++;

	if (i == MAX_CLASSES) {
		fprintf(stderr, "counter: more than %d classes\n", MAX_CLASSES);
		exit(1);
	}
	snprintf(class[i].name, sizeof(class[i].name), "%s%s", name, suffix);
	class[i].count.score = board;
	class[i].count.offset = i * sizeof(uint64_t);
	return i;
}

static int class_of(const char *name)
{
	int i;

	for (i = 0; i < nr_classes; i++)
		if (!strcmp(class[i].name, name))
			return i;
	return new_class(name, "");
}

/* The class of the function that @addr is in, or -1. */
static int function_of(uint64_t addr)
{
	int low = first_function, high = nr_classes;

	if (low == high || addr < function[low])
		return -1;
	while (high - low > 1) {
		int middle = (low + high) / 2;

		if (function[middle] <= addr)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Instructions under the lock, and since when it is held. */
static uint64_t under_lock, locked_at;
static bool counting;

static void mark_lock(bool locked)
{
	uint64_t now = qemu_plugin_u64_sum(class[class_of("instructions")].count);

	if (locked)
		locked_at = now;
	else if (counting)
		under_lock += now - locked_at;
}

/* When the window was opened, and where; the longest one. */
static bool window_is_open;
static uint64_t opened_at, longest;
static int opened_in = -1, longest_in = -1;

struct switching {
	unsigned int reg;	/* what is written */
	unsigned int bit;	/* it opens the window */
	int function;		/* class of the function */
};

static uint64_t general_register(unsigned int nr)
{
	static struct qemu_plugin_register *handle[31];
	static struct array *buf;
	uint64_t val = 0;
	unsigned int i;

	if (!buf) {
		struct array *all = qemu_plugin_get_registers();

		buf = g_byte_array_new();
		for (i = 0; i < all->len; i++) {
			struct register_descriptor *d =
				(void *)(all->data + i * g_array_get_element_size(all));
			unsigned int n;
			char end;

			if (sscanf(d->name, "x%u%c", &n, &end) == 1 && n < 31)
				handle[n] = d->handle;
		}
	}
	if (nr == 31)
		return 0;
	g_byte_array_set_size(buf, 0);
	if (!handle[nr] || !qemu_plugin_read_register(handle[nr], buf) || buf->len != sizeof(val)) {
		fprintf(stderr, "counter: x%u cannot be read\n", nr);
		exit(1);
	}
	memcpy(&val, buf->data, sizeof(val));
	return val;
}

static void switched(unsigned int vcpu, void *data)
{
	uint64_t now = qemu_plugin_u64_sum(class[class_of("instructions")].count);
	const struct switching *s = data;
	bool open = general_register(s->reg) >> s->bit & 1;

	(void)vcpu;
	if (open && !window_is_open) {
		opened_at = now;
		opened_in = counting ? s->function : -1;
	} else if (!open && window_is_open && opened_in >= 0 && now - opened_at > longest) {
		longest = now - opened_at;
		longest_in = opened_in;
	}
	window_is_open = open;
}

static void mark(unsigned int vcpu, void *data)
{
	int i;

	(void)vcpu;
	if ((uintptr_t)data == LOCKED || (uintptr_t)data == UNLOCKED) {
		mark_lock((uintptr_t)data == LOCKED);
		return;
	}
	if ((uintptr_t)data != REPORT)
		counting = (uintptr_t)data == BEGIN;
	for (i = 0; i < nr_classes; i++) {
		uint64_t now = qemu_plugin_u64_sum(class[i].count);

		switch ((uintptr_t)data) {
		case BEGIN:
			class[i].at_begin = now;
			break;
		case END:
			class[i].sum += now - class[i].at_begin;
			break;
		case REPORT:
			if (i < first_function || class[i].sum)
				fprintf(out, "%s%s=%" PRIu64, i ? " " : "", class[i].name, class[i].sum);
			class[i].sum = 0;
			break;
		}
	}
	if ((uintptr_t)data == REPORT) {
		fprintf(out, " under_lock=%" PRIu64 " longest_window=%" PRIu64 " longest_in=%s\n",
			under_lock, longest, longest_in < 0 ? "-" : class[longest_in].name);
		under_lock = longest = 0;
		longest_in = -1;
		fflush(out);
	}
}

/* The kinds of instructions that are counted, by their encoding. */
static const char *kind_of(uint32_t insn)
{
	if (insn == 0xd5033fdf)
		return "isb";
	if ((insn & 0xfffff0ff) == 0xd503309f)
		return "dsb";
	/* TLBI: SYS with CRn = 8; those of the inner-shareable domain have CRm = 3 or 1. */
	if ((insn & 0xfff8f000) == 0xd5088000 || (insn & 0xfff8f000) == 0xd5089000) {
		unsigned int crm = insn >> 8 & 15;

		return crm == 3 || crm == 1 || crm == 2 || crm == 5 ? "tlbi_bcast" : "tlbi_local";
	}
	return NULL;
}

/*
 * MSR to the register of kpkeys: POR_EL1, its mock TPIDR2_EL0, or PIR_EL1. Returns the
 * bit that allows to write page tables, or 0.
 */
static unsigned int switch_bit(uint32_t insn)
{
	switch (insn & ~0x1fu) {
	case 0xd518a280:
	case 0xd51bd0a0:
		return 6;
	case 0xd518a260:
		return 26;
	}
	return 0;
}

static void count_switch(struct qemu_plugin_insn *insn, uint32_t code, uint64_t addr)
{
	struct switching *s;

	/* What is open is that of one CPU, and other threads would write to the same variables. */
	if (qemu_plugin_num_vcpus() > 1)
		return;
	s = malloc(sizeof(*s));
	if (!s)
		exit(1);
	s->reg = code & 31;
	s->bit = switch_bit(code);
	s->function = function_of(addr);
	qemu_plugin_register_vcpu_insn_exec_cb(insn, switched, CB_R_REGS, s);
}

static void count(struct qemu_plugin_insn *insn, int which)
{
	qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, INLINE_ADD_U64,
							    class[which].count, 1);
}

static void translated(struct qemu_plugin_tb *tb, void *data)
{
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	int s;

	(void)data;
	for (i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t addr = qemu_plugin_insn_vaddr(insn);
		uint32_t code = 0;
		uintptr_t m;

		qemu_plugin_insn_data(insn, &code, sizeof(code));
		count(insn, class_of("instructions"));
		if (kind_of(code))
			count(insn, class_of(kind_of(code)));
		if (switch_bit(code)) {
			count(insn, class_of("switches"));
			count_switch(insn, code, addr);
		}
		for (s = 0; s < nr_symbols; s++)
			if (symbol[s].addr == addr)
				count(insn, symbol[s].class);
		if (function_of(addr) >= 0)
			count(insn, function_of(addr));
		for (m = BEGIN; m <= UNLOCKED; m++)
			if (code == HINT(m))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, mark, CB_NO_REGS, (void *)m);
	}
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	static const char * const kinds[] = {
		"instructions", "switches", "isb", "dsb", "tlbi_bcast", "tlbi_local",
	};
	FILE *f = NULL, *functions = NULL;
	char name[64];
	uint64_t addr;
	size_t i;
	int a;

	(void)info;
	board = qemu_plugin_scoreboard_new(MAX_CLASSES * sizeof(uint64_t));
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		class_of(kinds[i]);
	for (a = 0; a < argc; a++) {
		if (!strncmp(argv[a], "out=", 4))
			out = fopen(argv[a] + 4, "w");
		else if (!strncmp(argv[a], "symbols=", 8))
			f = fopen(argv[a] + 8, "r");
		else if (!strncmp(argv[a], "functions=", 10))
			functions = fopen(argv[a] + 10, "r");
	}
	if (!out || !f || !functions) {
		fprintf(stderr, "counter: out=FILE, symbols=FILE and functions=FILE are needed\n");
		return 1;
	}
	while (nr_symbols < MAX_SYMBOLS && fscanf(f, "%63s %" SCNx64, name, &addr) == 2) {
		symbol[nr_symbols].addr = addr;
		symbol[nr_symbols++].class = class_of(name);
	}
	fclose(f);
	first_function = nr_classes;
	while (fscanf(functions, "%60s %" SCNx64 "%*[^\n]", name, &addr) == 2)
		function[new_class(name, "()")] = addr;
	fclose(functions);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	return 0;
}
