/* QEMU TCG plugin: instructions and Cortex-M4 cycles per function.
 *
 * Cycles follow the timing table of the Arm Cortex-M4 TRM (r0p1, 3.3.1): one each; a load two, the next load of a row
 * one; LDRD three; LDM, STM, PUSH and POP one and one per register; a taken branch one and a pipeline refill of two; a
 * division seven (2 to 12). The declarations below are those of QEMU's plugin interface, version 1.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*tb_trans)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*tb_exec)(unsigned, void *);
typedef void (*at_exit)(qemu_plugin_id_t, void *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, tb_exec, int flags, void *);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, at_exit, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { TAKEN_BRANCH = 2, DIVISION = 7, MAX_FUNCTIONS = 256 };

struct function {
    char name[64];
    uint64_t instructions, cycles;
};
struct block {
    struct function *function;
    uint64_t start, end, instructions, cycles;
};

static struct function functions[MAX_FUNCTIONS];
static const struct block *previous;

static struct function *find(const char *name) {
    for (int i = 0; i < MAX_FUNCTIONS; i++) {
        if (!functions[i].name[0]) snprintf(functions[i].name, sizeof functions[i].name, "%s", name);
        if (!strcmp(functions[i].name, name)) return &functions[i];
    }
    abort();
}

static int registers(const char *text) {
    int n = 0;
    const char *p = strchr(text, '{');
    for (; p && *p && *p != '}'; p++) {
        if (*p == ',' || *p == '{') n++;
        if (*p == '-') { /* r4-r7 */
            int from = atoi(strchr(text, '{') ? p - 1 : p), to = atoi(p + 2);
            n += to - from;
        }
    }
    return n;
}

static bool is(const char *text, const char *mnemonic) { return !strncmp(text, mnemonic, strlen(mnemonic)); }

static int cycles_of(const char *text, bool *load) {
    bool after_load = *load;
    *load = false;
    if (is(text, "push") || is(text, "pop") || is(text, "ldm") || is(text, "stm")) return 1 + registers(text);
    if (is(text, "ldrd") || is(text, "strd")) return 3;
    if (is(text, "ldr")) {
        *load = true;
        return after_load ? 1 : 2;
    }
    if (is(text, "sdiv") || is(text, "udiv")) return DIVISION;
    return 1;
}

static void executed(unsigned cpu, void *data) {
    const struct block *block = data;
    (void)cpu;
    block->function->instructions += block->instructions;
    block->function->cycles += block->cycles;
    if (previous && previous->end != block->start) previous->function->cycles += TAKEN_BRANCH;
    previous = block;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    struct block *block = calloc(1, sizeof *block);
    size_t n = qemu_plugin_tb_n_insns(tb);
    bool load = false;
    (void)id;
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        char *text = qemu_plugin_insn_disas(insn);
        if (!i) {
            const char *name = qemu_plugin_insn_symbol(insn);
            block->function = find(name ? name : "?");
            block->start = qemu_plugin_insn_vaddr(insn);
        }
        block->end = qemu_plugin_insn_vaddr(insn) + qemu_plugin_insn_size(insn);
        block->instructions++;
        block->cycles += cycles_of(text, &load);
        free(text);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

static void finished(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    for (int i = 0; i < MAX_FUNCTIONS && functions[i].name[0]; i++)
        fprintf(stderr, "count %s %" PRIu64 " %" PRIu64 "\n", functions[i].name, functions[i].instructions,
                functions[i].cycles);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
                                                               char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
