"""Latency reports of every kind, made up for tests; the times are invented."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np

from phoneward.bundle import Delegation, OutputParity, Parity
from phoneward.names import ParityStatus, Precision, Provenance
from phoneward.profiles.kernels import Kernel
from phoneward.profiles.report.schema import (
    Aggregate,
    Emulated,
    LatencyReport,
    Machine,
    Measured,
    Memory,
    OpTime,
    Predicted,
    Share,
    StageReport,
    Subject,
    Unpriced,
    Window,
)

WHEN = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
STAGES = ("encode", "prompt", "propagate", "memorize")


def samples(median_ms: float, count: int = 60, seed: int = 1, spread: float = 0.02) -> list[int]:
    """Durations in nanoseconds, log-normal around a median."""
    random = np.random.default_rng(seed)
    return [round(value) for value in 1e6 * median_ms * random.lognormal(0, spread, count)]


def measured(median_ms: float = 20.0, seed: int = 1, **changes: Any) -> Measured:
    """A full measurement: three processes, loads, memory, ops, a sustained run."""
    drift = [1 + 0.2 * (1 - np.exp(-step / 4)) for step in range(12)]
    full: dict[str, Any] = {
        "samples_ns": samples(median_ms, 60, seed),
        "process_samples": (20, 20, 20),
        "median_interval_ns": (round(0.97e6 * median_ms), round(1.03e6 * median_ms)),
        "first_ns": round(1.8e6 * median_ms),
        "warmup_runs": 10,
        "steady": True,
        "cold_load_ns": (41_000_000, 39_500_000, 44_100_000),
        "warm_load_ns": (12_000_000, 11_800_000),
        "process_start_ns": (210_000_000, 205_000_000, 230_000_000),
        "memory": Memory(peak_bytes=183_000_000, before_bytes=61_000_000, source="VmHWM"),
        "ops": ops(median_ms),
        "sustained": [
            Window(
                start_ns=round(5e9 * step),
                runs=200,
                p50_ns=round(1e6 * median_ms * factor),
                p90_ns=round(1.06e6 * median_ms * factor),
                p99_ns=round(1.2e6 * median_ms * factor),
            )
            for step, factor in enumerate(drift)
        ],
    }
    return Measured(**{**full, **changes})


def ops(median_ms: float, count: int = 60) -> tuple[OpTime, ...]:
    """Ops that share a time, most of it in the first few."""
    kinds = ("Fully Connected (NC, F32)", "Convolution (NHWC, F32) IGEMM", "Add", "Softmax")
    weights = [1 / (index + 2) for index in range(count)]
    return tuple(
        OpTime(
            name=f"model/trunk/blocks.{index // 4}/attn/qkv/MatMul;model/trunk/add_{index}",
            kind=kinds[index % 4],
            module=f"encoder.trunk.blocks.{index // 4}.attn.qkv" if index % 3 else None,
            unit="XNNPACK" if index % 5 else "cpu",
            median_ns=round(1e6 * median_ms * weight / sum(weights)),
        )
        for index, weight in enumerate(weights)
    )


def kernels(count: int = 24) -> tuple[Kernel, ...]:
    """Convolutions and what lies between them."""
    made = []
    for index in range(count):
        size = 64 // 2 ** (index // 8)
        module = f"encoder.trunk.blocks.{index // 4}.attn.qkv"
        area = size * size
        if index % 4 == 3:
            plain = {"reads": 2 * area * 64, "writes": area * 64}
            made.append(Kernel(kind="elementwise", ops=("aten.add",), module=module, **plain))
            continue
        kind: Any = ("pointwise", "conv", "depthwise")[index % 3]
        macs = area * 64 * {"pointwise": 64, "conv": 576, "depthwise": 9}[kind]
        params = {"pointwise": 4096, "conv": 36_864, "depthwise": 576}[kind]
        plain = {"macs": macs, "reads": area * 64, "writes": area * 64, "params": params}
        made.append(Kernel(kind=kind, ops=("aten.conv2d",), module=module, **plain))
    return tuple(made)


def stage(name: str = "encode", **changes: Any) -> StageReport:
    """A measured stage of a TFLite artifact that agrees with PyTorch."""
    outputs = (
        OutputParity(output="features", max_abs_error=2e-5, relative_error=3.1e-6, snr_db=104.2),
    )
    full: dict[str, Any] = {
        "stage": name,
        "format": "tflite",
        "precision": Precision.FP32,
        "engine": "litert",
        "engine_version": "2.3.0",
        "delegate": "XNNPACK",
        "unit": "cpu",
        "threads": 2,
        "artifact_sha256": "ab" * 32,
        "artifact_bytes": 24_100_000,
        "parity": Parity(status=ParityStatus.OK, engine="litert", outputs=outputs),
        "delegation": Delegation(
            delegate="XNNPACK", partitions=3, delegated_ops=212, fallback={"GATHER_ND": 2}
        ),
        "result": measured(),
    }
    return StageReport(**{**full, **changes})


def report(*stages: StageReport, **changes: Any) -> LatencyReport:
    """A report of these stages; of one measured stage if there are none."""
    made = stages or (stage(),)
    full: dict[str, Any] = {
        "provenance": Provenance(made[0].result.provenance),
        "created": WHEN,
        "phoneward": "0.1.0",
        "place": "host",
        "subject": Subject(model="efficienttam_ti_512x512", weights="random"),
        "machine": Machine(
            name="Raspberry Pi 5 Model B",
            device="raspberry-pi-5",
            os="Linux 6.6",
            cpu="Cortex-A76",
            architecture="aarch64",
            cores=4,
            memory_bytes=8_000_000_000,
            facts={"governor": "performance", "temperature before": "48.2 °C"},
        ),
        "tools": {"phoneward": "0.1.0", "ai-edge-litert": "2.3.0"},
        "stages": made,
    }
    return LatencyReport(**{**full, **changes})


def tracker_report() -> LatencyReport:
    """Four stages and the whole frame, on two engines."""
    times = dict(zip(STAGES, (61.0, 4.2, 38.0, 9.5), strict=True))
    made = [
        stage(name, result=measured(time, seed=7 + index))
        for index, (name, time) in enumerate(times.items())
    ]
    other: dict[str, Any] = {"format": "executorch", "engine": "executorch", "delegation": None}
    made += [
        stage(name, result=measured(1.2 * time, seed=17 + index, sustained=()), **other)
        for index, (name, time) in enumerate(times.items())
    ]
    frame = stage("frame", result=measured(112.0, seed=30), parity=None, delegation=None)
    return report(*made, end_to_end=frame, warnings=("the machine was busy: load average 1.3",))


def predicted_report(latency_ms: float = 24.0, name: str = "encode") -> LatencyReport:
    """A prediction with its kernels, an op without price, and a cliff."""
    share = latency_ms / 24
    result = Predicted(
        latency_ms=latency_ms,
        interval_ms=(0.8 * latency_ms, 1.3 * latency_ms),
        basis="412 public measurements on 9 devices",
        breakdown=tuple(
            Share(name=f"kernel {index}", kind=kernel.kind, module=kernel.module, latency_ms=share)
            for index, kernel in enumerate(kernels())
        ),
        unpriced=(Unpriced(op="aten.grid_sampler", count=2, reason="no measurement has it"),),
        cliffs=("half precision is not faster on this core",),
    )
    made = stage(
        name, result=result, engine="tflite", parity=None, delegation=None, kernels=kernels()
    )
    return report(made, place="predicted", tools={})


def emulated_report() -> LatencyReport:
    """Counted instructions of one stage."""
    result = Emulated(
        cpu="cortex-a76",
        instructions=812_345_678,
        by_class={"fmla": 402_000_000, "load": 190_000_000, "store": 51_000_000, "sdot": 0},
        runs=2,
        identical=True,
        max_relative_error=3e-6,
    )
    machine = Machine(name="qemu cortex-a76", architecture="aarch64")
    return report(stage(result=result), machine=machine, place="qemu:cortex-a76")


def aggregate(mean_ms: float = 20.0, count: int = 50) -> Aggregate:
    """What `benchmark_model` tells."""
    mean = 1e6 * mean_ms
    return Aggregate(
        source="benchmark_model",
        count=count,
        mean_ns=mean,
        min_ns=round(0.9 * mean),
        max_ns=round(1.3 * mean),
        std_ns=0.02 * mean,
    )
