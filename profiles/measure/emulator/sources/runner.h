/* What the runners of all engines share: files of tensors, and how to end.
 *
 * A runner is called as `runner MODEL RUNS INPUT... -- OUTPUT...` in a folder with a file `in.N`
 * of raw bytes for each input name in turn. It runs WARM_UP times, RUNS times between markers, and
 * writes the last answers to `out.N`. Its first line on standard output is READY, its last is
 * DONE; it ends with 0, or with 1 and a reason on standard error.
 */
#ifndef PHONEWARD_RUNNER_H
#define PHONEWARD_RUNNER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READY "phoneward runner 1"
#define DONE "done"
#define WARM_UP 2 /* memory that engines keep for the next inference settles in the second */

struct job {
    const char *model;
    int runs;
    int n_inputs, n_outputs;
    char **inputs, **outputs; /* names of tensors */
};

__attribute__((noreturn)) static void fail(const char *what, const char *detail)
{
    fprintf(stderr, "%s: %s\n", what, detail);
    exit(1);
}

static inline struct job read_job(int argc, char **argv)
{
    struct job job = {0};
    int i = 3;
    if (argc < 4) {
        fail("usage", "runner MODEL RUNS INPUT... -- OUTPUT...");
    }
    job.model = argv[1];
    job.runs = atoi(argv[2]);
    job.inputs = argv + i;
    while (i < argc && strcmp(argv[i], "--") != 0) {
        i++, job.n_inputs++;
    }
    job.outputs = argv + i + 1;
    job.n_outputs = argc - i - 1;
    if (job.runs < 1 || job.n_outputs < 1) {
        fail("usage", "at least one run and one output");
    }
    printf("%s\n", READY);
    return job;
}

/* Fills `size` bytes from `in.N`, which must have exactly so many. */
static inline void read_tensor(int number, void *bytes, size_t size)
{
    char name[32], more;
    snprintf(name, sizeof name, "in.%d", number);
    FILE *file = fopen(name, "rb");
    if (!file) {
        fail(name, "cannot be opened");
    }
    if (fread(bytes, 1, size, file) != size || fread(&more, 1, 1, file) != 0) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "the model takes %zu bytes", size);
        fail(name, wanted);
    }
    fclose(file);
}

static inline void write_tensor(int number, const void *bytes, size_t size)
{
    char name[32];
    snprintf(name, sizeof name, "out.%d", number);
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        fail(name, "cannot be written");
    }
}

#endif
