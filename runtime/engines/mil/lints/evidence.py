"""Where the rules' facts come from: Apple's pages, coremltools' issues, and measurements.

Apple documents little of the Neural Engine. The ane-guide was measured on an M1, M2 and M5 and read
from the compiler's tables; Hollemans' pages were found by trying. A new system may change any.
"""

from __future__ import annotations

_GUIDE = "ane-guide.readthedocs.io (independent)"

DESIGN_RULES = f"{_GUIDE}: chapter 17, limits that the compiler's validators enforce"
CAPABILITIES = f"{_GUIDE}: chapter 4, what compiles and what does not"
OP_MATRIX = f"{_GUIDE}: appendix A, ops by device family"
HOLLANCE = "github.com/hollance/neural-engine: docs/unsupported-layers.md"
RECURRENT = "apple/coremltools#1780: RNN and LSTM are not supported on the Neural Engine (Apple)"
GATHER_ISSUE = "apple/coremltools#1103: gather takes as long with all units as on the CPU alone"
DETECTOR_PLAN = (
    "roboflow/rf-detr#1495: MLComputePlan, M3 Pro: only topk and the tile and "
    "gather_along_axis after it leave the Neural Engine"
)
KERNEL_ISSUE = "hollance/neural-engine#1: Core ML's log says that kernel size > 13 is not supported"
TYPED = (
    "apple.github.io/coremltools: Typed Execution Workflow: float 16 is eligible for the Neural "
    "Engine, GPU and CPU, float 32 for GPU and CPU"
)
PRECISION_ISSUE = "vx-lang/Vx#437: MLComputePlan prefers the Neural Engine for fp16 alone"
TRANSFORMERS = (
    "machinelearning.apple.com: Deploying Transformers on the Apple Neural Engine (2022): "
    "(B, C, 1, S) layout, last axis contiguous and aligned to 64 bytes, few memory copies"
)
VISION = (
    "machinelearning.apple.com: Deploying Attention-Based Vision Transformers to Apple Neural "
    "Engine: six-dimensional window partition relayed through five dimensions"
)
RANK_ISSUE = "apple/coremltools#1723: Core ML does not support tensors of a rank over 5 (Apple)"
FLEXIBLE_FORUM = (
    "developer.apple.com/forums/thread/724930 (Apple): with range flexibility only the default "
    "shape runs on the Neural Engine"
)
FLEXIBLE_ISSUE = (
    "apple/coremltools#2370: 370 runs/s at a fixed shape, 30 to 100 at enumerated or ranged "
    "ones, Neural Engine at 0 to 2 %"
)
ENUMERATED_ISSUE = "apple/coremltools#1909: a LayerNorm with enumerated shapes leaves the engine"
EXTENT_RUNTIME = (
    "microsoft/onnxruntime, CoreML execution provider, and apple/coremltools#1003: models with a "
    "dimension over 16384 fail to load"
)
TRANSPOSE_ISSUE = "apple/coremltools#985, #1302: transposes around convolutions, 2 to 3.5x slower"
HALF_RELEASE = "apple/coremltools release 6.0b1: float16 arrays as inputs and outputs, from iOS 16"
PIXEL_BUFFER = (
    "developer.apple.com: MLMultiArray.init(pixelBuffer:shape:): float16 arrays over a pixel "
    "buffer avoid the copy to and from compute units"
)
PLAN_ISSUE = "onnxsim/onnxsim#980: MLComputePlan tells nothing of ops of a model for old systems"
PLAN_FUNCTIONS = (
    "pytorch/executorch, coreml_compute_plan.py: load_from_path covers the default function only"
)
TABLES = f"{_GUIDE}: appendix C, channels are interleaved by 1, 2, 3, 4 or 8"
