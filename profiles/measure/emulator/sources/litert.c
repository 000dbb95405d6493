/* Runs a TFLite model with LiteRT's compiled model on the CPU; see runner.h.
 *
 * The declarations are those of LiteRT's C interface (litert/c, LiteRT 2.3), whose headers its
 * Python package leaves out.
 */
#include <stdbool.h>
#include <stdint.h>

#include "marker.h"
#include "runner.h"

typedef struct opaque *handle;

int LiteRtCreateEnvironment(int n_options, const void *options, handle *environment);
int LiteRtCreateModelFromFile(handle environment, const char *path, handle *model);
int LiteRtCreateOptions(handle *options);
int LiteRtSetOptionsHardwareAccelerators(handle options, int accelerators);
int LiteRtCreateCompiledModel(handle environment, handle model, handle options, handle *compiled);
int LiteRtGetNumModelSignatures(handle model, size_t *n);
int LiteRtGetModelSignature(handle model, size_t index, handle *signature);
int LiteRtGetSignatureSubgraph(handle signature, handle *subgraph);
int LiteRtGetNumSignatureInputs(handle signature, size_t *n);
int LiteRtGetNumSignatureOutputs(handle signature, size_t *n);
int LiteRtGetSignatureInputName(handle signature, size_t index, const char **name);
int LiteRtGetSignatureOutputName(handle signature, size_t index, const char **name);
int LiteRtGetSignatureInputTensorByIndex(handle signature, size_t index, handle *tensor);
int LiteRtGetSignatureOutputTensorByIndex(handle signature, size_t index, handle *tensor);
int LiteRtGetSubgraphInput(handle subgraph, size_t index, handle *tensor);
int LiteRtGetSubgraphOutput(handle subgraph, size_t index, handle *tensor);
int LiteRtGetRankedTensorType(handle tensor, void *type);
int LiteRtGetCompiledModelInputBufferRequirements(handle compiled, size_t signature, size_t index,
                                                  handle *requirements);
int LiteRtGetCompiledModelOutputBufferRequirements(handle compiled, size_t signature, size_t index,
                                                   handle *requirements);
int LiteRtCreateManagedTensorBufferFromRequirements(handle environment, const void *type,
                                                    handle requirements, handle *buffer);
int LiteRtGetTensorBufferPackedSize(handle buffer, size_t *size);
int LiteRtLockTensorBuffer(handle buffer, void **address, int mode);
int LiteRtUnlockTensorBuffer(handle buffer);
int LiteRtRunCompiledModel(handle compiled, size_t signature, size_t n_inputs, handle *inputs,
                           size_t n_outputs, handle *outputs);

enum { CPU = 1, READ = 0, WRITE = 1, MAX_TENSORS = 256 };

/* One side of the model's signature: its tensors by index and by name. */
struct side {
    const char *what;
    int n;
    char **wanted; /* names, in the caller's order */
    int (*name_of)(handle, size_t, const char **);
    int (*tensor_of)(handle, size_t, handle *);
    int (*of_subgraph)(handle, size_t, handle *);
    int (*requirements)(handle, size_t, size_t, handle *);
    handle buffers[MAX_TENSORS]; /* in the signature's order */
    int index[MAX_TENSORS];      /* of the caller's tensors in it */
};

static void check(int status, const char *what)
{
    if (status != 0) {
        char detail[48];
        snprintf(detail, sizeof detail, "LiteRT's status is %d", status);
        fail(what, detail);
    }
}

static int find_by_name(const struct side *side, handle signature, const char *wanted)
{
    for (int i = 0; i < side->n; i++) {
        const char *name;
        check(side->name_of(signature, i, &name), "a tensor's name");
        if (strcmp(name, wanted) == 0) {
            return i;
        }
    }
    return -1;
}

static int find_by_position(const struct side *side, handle signature, int position)
{
    handle subgraph, wanted, tensor;
    check(LiteRtGetSignatureSubgraph(signature, &subgraph), "the signature's graph");
    check(side->of_subgraph(subgraph, position, &wanted), "a tensor of the graph");
    for (int i = 0; i < side->n; i++) {
        check(side->tensor_of(signature, i, &tensor), "a tensor of the signature");
        if (tensor == wanted) {
            return i;
        }
    }
    return -1;
}

/* Where names are only positions (`args_0`), or are not ours, the order in the graph decides. */
static void find_tensors(struct side *side, handle signature, size_t n)
{
    bool by_name = true;
    if (side->n > MAX_TENSORS || n != (size_t)side->n) {
        fail(side->what, "the model has another number of tensors");
    }
    for (int i = 0; i < side->n; i++) {
        by_name = by_name && find_by_name(side, signature, side->wanted[i]) >= 0;
    }
    for (int i = 0; i < side->n; i++) {
        side->index[i] = by_name ? find_by_name(side, signature, side->wanted[i])
                                 : find_by_position(side, signature, i);
        if (side->index[i] < 0) {
            fail(side->wanted[i], "the model has no such tensor");
        }
    }
}

static void make_buffers(struct side *side, handle environment, handle compiled, handle signature)
{
    for (int i = 0; i < side->n; i++) {
        handle tensor, requirements;
        uint64_t type[32]; /* opaque here: kind, rank, dimensions, strides */
        check(side->tensor_of(signature, i, &tensor), "a tensor");
        check(LiteRtGetRankedTensorType(tensor, type), "a tensor's shape");
        check(side->requirements(compiled, 0, i, &requirements), "a tensor's memory");
        check(LiteRtCreateManagedTensorBufferFromRequirements(environment, type, requirements,
                                                              &side->buffers[i]),
              "a tensor's buffer");
    }
}

static void move_tensors(struct side *side, int mode)
{
    for (int i = 0; i < side->n; i++) {
        handle buffer = side->buffers[side->index[i]];
        void *bytes;
        size_t size;
        check(LiteRtGetTensorBufferPackedSize(buffer, &size), side->wanted[i]);
        check(LiteRtLockTensorBuffer(buffer, &bytes, mode), side->wanted[i]);
        if (mode == WRITE) {
            read_tensor(i, bytes, size);
        } else {
            write_tensor(i, bytes, size);
        }
        check(LiteRtUnlockTensorBuffer(buffer), side->wanted[i]);
    }
}

int main(int argc, char **argv)
{
    struct job job = read_job(argc, argv);
    handle environment, model, options, compiled, signature;
    size_t n_signatures, n_inputs, n_outputs;
    static struct side in = {
        "inputs", 0, NULL, LiteRtGetSignatureInputName, LiteRtGetSignatureInputTensorByIndex,
        LiteRtGetSubgraphInput, LiteRtGetCompiledModelInputBufferRequirements, {0}, {0}};
    static struct side out = {
        "outputs", 0, NULL, LiteRtGetSignatureOutputName, LiteRtGetSignatureOutputTensorByIndex,
        LiteRtGetSubgraphOutput, LiteRtGetCompiledModelOutputBufferRequirements, {0}, {0}};
    in.n = job.n_inputs, in.wanted = job.inputs;
    out.n = job.n_outputs, out.wanted = job.outputs;

    check(LiteRtCreateEnvironment(0, NULL, &environment), "LiteRT's environment");
    check(LiteRtCreateModelFromFile(environment, job.model, &model), "the model's file");
    check(LiteRtCreateOptions(&options), "options");
    check(LiteRtSetOptionsHardwareAccelerators(options, CPU), "options");
    check(LiteRtCreateCompiledModel(environment, model, options, &compiled), "the model");
    check(LiteRtGetNumModelSignatures(model, &n_signatures), "signatures");
    if (n_signatures != 1) {
        fail("the model", "it has not one signature");
    }
    check(LiteRtGetModelSignature(model, 0, &signature), "the signature");
    check(LiteRtGetNumSignatureInputs(signature, &n_inputs), "inputs");
    check(LiteRtGetNumSignatureOutputs(signature, &n_outputs), "outputs");
    find_tensors(&in, signature, n_inputs);
    find_tensors(&out, signature, n_outputs);
    make_buffers(&in, environment, compiled, signature);
    make_buffers(&out, environment, compiled, signature);

    move_tensors(&in, WRITE);
    for (int run = -WARM_UP; run < job.runs; run++) {
        mark(run < 0 ? MARKER_NONE : MARKER_BEGIN);
        int status =
            LiteRtRunCompiledModel(compiled, 0, n_inputs, in.buffers, n_outputs, out.buffers);
        mark(run < 0 ? MARKER_NONE : MARKER_END);
        check(status, "a run");
    }
    move_tensors(&out, READ);
    printf("%s\n", DONE);
    fflush(stdout);
    _Exit(0); /* what LiteRT frees at its end takes emulated seconds */
}
