"""Carry published latencies into the form that the latency model is fitted on.

What is no data for a fit stays in the file with the reason, so that a reader sees what was left
out. These rules were fixed by reading the latency tables. One was confirmed on errors of
prediction as well: that the Neural Engine of 2022's iOS and converters (`ane15`) is a unit of its
own. The same models' times in two papers of the same authors prompted it, and errors decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Published = Mapping[str, str]
Carried = dict[str, str]

COLUMNS = (
    "model",
    "architecture",
    "unit",
    "soc",
    "device",
    "runtime",
    "numeric",
    "threads",
    "lab",
    "latency_ms",
    "kind",
    "excluded",
    "source_title",
    "source_ref",
)
_RUNTIMES = {
    "CoreML": "coreml",
    "ExecuTorch CoreML": "executorch",
    "ExecuTorch XNNPACK": "executorch",
    "MNN": "mnn",
    "ONNX Runtime": "onnxruntime",
    "QNN": "qnn",
    "QNN DLC": "qnn",
    "TFLite": "tflite",
    "TFLite 2.1": "tflite",
    "TFLite CoreML delegate": "tflite",
    "TFLite Metal": "tflite",
    "ncnn": "ncnn",
    "ncnn Vulkan": "ncnn",
}
_NUMERICS = {"int8": "w8a8", "quant 8-bit": "w8a8", "w8a8": "w8a8", "w8a16": "w8a16"}
_LABS = {
    "EfficientFormer V1": "efficientformer-v1",
    "EfficientFormer paper": "efficientformer-v1",
    "EfficientFormer (NeurIPS": "efficientformer-v1",
    "EfficientFormerV2": "coreml-ios16",
    "SHViT": "coreml-ios16",
    "MobileOne": "coreml-ios16",
    "FastViT": "coreml-ios16",
    "Apple": "coreml-ios16",
    "Qualcomm AI Hub Models v0.21": "ai-hub-0.21",
    "Qualcomm AI Hub Models v0.47": "ai-hub-0.47",
    "ncnn": "ncnn",
    "TensorFlow Lite": "tflite",
    "tensorflow/models": "tf-slim",
    "nn-Meter": "nn-meter",
    "alibaba": "mnn",
    "snap-research": "issues",
}
# PoolFormer-S12 takes 6.1 ms there and 1.5 ms in the next paper of the same authors, same phone
_OLD_LAB = "efficientformer-v1"
# a few shape ops beside the graph are usual; more and the graph is in pieces
_STRAY_LAYERS = 4


def carry(rows: Iterable[Published], names: Mapping[tuple[str, str, str], str]) -> list[Carried]:
    """Return the rows whose model can be built, in the columns of COLUMNS.

    Args:
        rows: of the published table.
        names: by model, variant and size, the name a graph can be built under.
    """
    found = []
    for row in rows:
        name = names.get((row["model"], row["variant"], row["input_resolution"]))
        if name and row["runtime"] in _RUNTIMES and (unit := _unit(row)):
            found.append(_carried(row, name, unit))
    return found


def architecture(name: str) -> str:
    """Return the family of a model, whatever its size, its library and its head."""
    bare = name.split(":")[-1].split("@")[0].removeprefix("tf_")
    bare = re.sub(r"mobilenet_?v", "mobilenetv", bare)
    bare = bare.replace("efficientnet_v2", "efficientnetv2")
    found = re.match(r"[a-z]+?v\d|[a-z]+", bare)
    return found[0] if found else bare


def _carried(row: Published, name: str, unit: str) -> Carried:
    latency, lab = row["latency_ms"], _lab(row["source_title"])
    least = re.search(r"min=([\d.]+)", row["top1_or_metric"])
    if least and row["source_title"].startswith("ncnn"):
        # an average may hide throttling
        latency = least[1]
    kind = re.match(r"\[(\w+)", row["source_ref"])
    return {
        "model": name,
        "architecture": architecture(name),
        "unit": "ane15" if unit == "ane" and lab == _OLD_LAB else unit,
        "soc": row["soc"],
        "device": row["device"],
        "runtime": _RUNTIMES[row["runtime"]],
        "numeric": _numeric(row["precision"]),
        "threads": _threads(row) if unit == "cpu" else "",
        "lab": lab,
        "latency_ms": latency,
        "kind": kind[1] if kind else "table",
        "excluded": _excluded(row),
        "source_title": row["source_title"],
        "source_ref": row["source_ref"],
    }


def _unit(row: Published) -> str | None:
    where, runtime = row["compute_unit"], row["runtime"]
    if "CoreML" in runtime:
        return "cpu" if where == "CPU" else None if where == "CPU+GPU" else "ane"
    for prefix, unit in (("CPU", "cpu"), ("GPU", "gpu"), ("NPU", "npu"), ("NNAPI", "nnapi")):
        if where.startswith(prefix):
            return unit
    return None


def _numeric(precision: str) -> str:
    return "mixed" if "mixed" in precision else _NUMERICS.get(precision, "fp")


def _threads(row: Published) -> str:
    found = re.search(r"(\d+)t(?: \((\w+) cores\))?", row["compute_unit"])
    if found:
        return f"{found[1]}t {found[2] or 'all'}"
    if "CPU 4 threads" in row["source_ref"]:
        return "4t all"
    if "CPU 2 threads" in row["source_ref"]:
        return "2t big"
    return "1t big" if row["runtime"].startswith("TFLite") else ""


def _lab(title: str) -> str:
    return next((lab for start, lab in _LABS.items() if title.startswith(start)), title)


def _excluded(row: Published) -> str:
    title, reference = row["source_title"], row["source_ref"]
    if title.startswith("react-native"):
        return "time of an application, not of a graph"
    if reference.startswith("[blog]"):
        return "a figure without a method"
    if row["model"] == "LeViT" and "HardSwish" in row["variant"]:
        return "cliff: hard swish leaves the Neural Engine"
    if "not named" in row["device"]:
        return "the phone is not named"
    if row["model"] == "iFormer":
        return "cliff: leaves the Neural Engine at 512 pixels"
    if "adreno640" in reference and row["model"] == "squeezenet":
        return "the log does not line up with the other devices'"
    counts = [int(count) for count in re.findall(r":(\d+)", row["compute_unit"])]
    if len(counts) > 1 and sum(counts) - max(counts) > _STRAY_LAYERS:
        return "cliff: the graph is in pieces, " + row["compute_unit"]
    return ""
