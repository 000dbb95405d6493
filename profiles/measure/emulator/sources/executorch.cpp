// Runs a program's method `forward` with ExecuTorch's C++ runtime; see runner.h.

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <vector>

#include "marker.h"
#include "runner.h"

using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

static void check(Error error, const char *what)
{
    if (error != Error::Ok) {
        char detail[48];
        snprintf(detail, sizeof detail, "ExecuTorch's error is %d", static_cast<int>(error));
        fail(what, detail);
    }
}

static std::vector<TensorPtr> read_inputs(Module &module, const struct job &job)
{
    auto meta = module.method_meta("forward");
    check(meta.error(), "the method `forward`");
    if (meta->num_inputs() != static_cast<size_t>(job.n_inputs)) {
        fail("inputs", "the program has another number of tensors");
    }
    std::vector<TensorPtr> tensors;
    for (int i = 0; i < job.n_inputs; i++) {
        auto input = meta->input_tensor_meta(i);
        check(input.error(), job.inputs[i]);
        std::vector<uint8_t> bytes(input->nbytes());
        read_tensor(i, bytes.data(), bytes.size());
        std::vector<executorch::aten::SizesType> sizes(input->sizes().begin(),
                                                       input->sizes().end());
        tensors.push_back(executorch::extension::make_tensor_ptr(std::move(sizes), std::move(bytes),
                                                                 input->scalar_type()));
    }
    return tensors;
}

static void write_outputs(const std::vector<EValue> &outputs, const struct job &job)
{
    if (outputs.size() != static_cast<size_t>(job.n_outputs)) {
        fail("outputs", "the program has another number of tensors");
    }
    for (int i = 0; i < job.n_outputs; i++) {
        if (!outputs[i].isTensor()) {
            fail(job.outputs[i], "is no tensor");
        }
        const auto tensor = outputs[i].toTensor();
        write_tensor(i, tensor.const_data_ptr(), tensor.nbytes());
    }
}

int main(int argc, char **argv)
{
    struct job job = read_job(argc, argv);
    Module module(job.model);
    check(module.load_method("forward"), "the program");
    const auto tensors = read_inputs(module, job);
    const std::vector<EValue> inputs(tensors.begin(), tensors.end());
    for (int run = -WARM_UP; run < job.runs; run++) {
        mark(run < 0 ? MARKER_NONE : MARKER_BEGIN);
        auto outputs = module.forward(inputs);
        mark(run < 0 ? MARKER_NONE : MARKER_END);
        check(outputs.error(), "a run");
        if (run + 1 == job.runs) {
            write_outputs(*outputs, job);
        }
    }
    printf("%s\n", DONE);
    fflush(stdout);
    _Exit(0);
}
