/* QEMU TCG plugin: how many instructions of each class an Arm program retires between markers.
 *
 * A program marks the beginning and the end of what is to be counted by closing a file descriptor
 * that cannot exist (marker.h). At each end the counts are written as one line to the file of the
 * argument `out`: `inference 61726622 strangers 0 fmla 210 sdot 33127424 ...`. `strangers` are the
 * instructions that other threads ran meanwhile: the counts are only exact if there are none. The
 * argument `parent` is the process that started the emulator, which does not outlive it.
 *
 * The interface is QEMU's plugin interface, version 1 (QEMU 7.2 has it), declared here because
 * Debian packages no header of it.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "classes.h"
#include "marker.h"

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translation_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*execution_callback)(unsigned int vcpu, void *data);
typedef void (*syscall_callback)(qemu_plugin_id_t, unsigned int vcpu, int64_t number, uint64_t a1,
                                 uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                                 uint64_t a7, uint64_t a8);
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translation_callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, execution_callback,
                                          enum qemu_plugin_cb_flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

/* What one translated block adds when it runs; a block has at most 512 instructions. */
struct block {
    uint32_t total;
    uint32_t kinds;
    struct {
        uint16_t class, count;
    } kind[CLASSES];
};

static bool counting;
static unsigned int counted_cpu;
static uint64_t total, strangers, counts[CLASSES];
static FILE *out;

static void run_block(unsigned int vcpu, void *data)
{
    const struct block *block = data;
    if (!counting) {
        return;
    }
    if (vcpu != counted_cpu) {
        strangers += block->total;
        return;
    }
    total += block->total;
    for (uint32_t i = 0; i < block->kinds; i++) {
        counts[block->kind[i].class] += block->kind[i].count;
    }
}

static void translate_block(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    uint16_t count[CLASSES] = {0};
    struct block *block = calloc(1, sizeof *block);
    if (!block) {
        abort();
    }
    block->total = qemu_plugin_tb_n_insns(tb);
    for (uint32_t i = 0; i < block->total; i++) {
        uint32_t insn;
        memcpy(&insn, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof insn);
        count[classify(insn)]++;
    }
    for (int class = 0; class < CLASSES; class++) {
        if (count[class]) {
            block->kind[block->kinds].class = class;
            block->kind[block->kinds++].count = count[class];
        }
    }
    /* QEMU keeps the pointer for as long as the block may run, which is until the program ends */
    qemu_plugin_register_vcpu_tb_exec_cb(tb, run_block, QEMU_PLUGIN_CB_NO_REGS, block);
}

static void write_counts(void)
{
    fprintf(out, "inference %" PRIu64 " strangers %" PRIu64, total, strangers);
    for (int class = 0; class < CLASSES; class++) {
        fprintf(out, " %s %" PRIu64, class_names[class], counts[class]);
    }
    fprintf(out, "\n");
    fflush(out);
}

static void see_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1,
                        uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                        uint64_t a7, uint64_t a8)
{
    (void)id, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != MARKER_CALL) {
        return;
    }
    if ((int64_t)a1 == MARKER_BEGIN) {
        total = strangers = 0;
        memset(counts, 0, sizeof counts);
        counted_cpu = vcpu;
        counting = true;
    } else if ((int64_t)a1 == MARKER_END && counting) {
        counting = false;
        write_counts();
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 2 || strncmp(argv[0], "out=", 4) != 0 || strncmp(argv[1], "parent=", 7) != 0) {
        fprintf(stderr, "counts: takes out=FILE,parent=PID\n");
        return -1;
    }
    /* an emulator must not outlive who asked for it, who may be gone already */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != atoi(argv[1] + 7)) {
        fprintf(stderr, "counts: whoever started this is gone\n");
        return -1;
    }
    out = fopen(argv[0] + 4, "w");
    if (!out) {
        perror(argv[0] + 4);
        return -1;
    }
    /* no core file where a program fails */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate_block);
    qemu_plugin_register_vcpu_syscall_cb(id, see_syscall);
    return 0;
}
