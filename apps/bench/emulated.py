"""`python -m phoneward.apps.bench.emulated`: count, and write `docs/benchmarks/emulated.md`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phoneward.apps.bench.emulated_page import Results, Row, render
from phoneward.apps.bench.machine import quoted_command
from phoneward.apps.bench.options import errors_end, names, positive, write_page
from phoneward.apps.cli.output import progress_bar
from phoneward.bundle import Artifact, Bundle, sha256_of
from phoneward.cache_root import default_root
from phoneward.export.models import find
from phoneward.export.pipeline import export_bundle
from phoneward.export.request import make_request
from phoneward.names import Precision
from phoneward.profiles.measure.emulator.cores import find_core
from phoneward.profiles.measure.emulator.guest import Emulator, Program
from phoneward.profiles.measure.emulator.sandbox import open_sandbox
from phoneward.quiet import noise_to
from phoneward.runtime.parity import Reference, compare

CORES = ("cortex-a53", "cortex-a72", "cortex-a76", "max")
_ENGINES = {"tflite": "litert", "executorch": "executorch"}
_FLOAT = ("tflite", "fp32")
_MOST_PHOTOGRAPHS = 4

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Subject:
    """A file, and the artifact whose tensors it has."""

    precision: str
    artifact: Artifact
    path: Path

    def __str__(self) -> str:
        """Return the name used in progress lines."""
        return f"{self.artifact.format}-{self.precision}"


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    cores = names(options.cores, find_core)
    sandbox = open_sandbox("qemu")  # before an export that takes minutes
    with progress_bar(quiet=False) as progress:
        bundle = _bundle(options.model, options.work.absolute(), progress)
        work = options.work.absolute()
        subjects = [*_exported(bundle), _quantized(bundle, work)]
        bench = Bench(bundle, work / "emulated", options.runs)
        rows = tuple(bench.rows(cores, subjects, progress))
    results = Results(
        command=quoted_command("phoneward.apps.bench.emulated", arguments),
        model=options.model,
        macs=_macs(options.model),
        tools={**bundle.manifest.tools, **sandbox.record.tools},
        rows=rows,
    )
    write_page(options.output, render(results), results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("phoneward.apps.bench.emulated", description=__doc__)
    add = parser.add_argument
    add("--model", default="efficientnet_lite0", help="a classifier [efficientnet_lite0]")
    add("--cores", default=",".join(CORES), help="names, separated by commas")
    add("--runs", type=positive, default=2, help="counted inferences [2]")
    add("--work", type=Path, default=default_root() / "bench", help="where files are kept")
    add("-o", "--output", type=Path, default=Path("docs/benchmarks/emulated.md"))
    return parser


def _bundle(model: str, work: Path, progress: Progress) -> Bundle:
    folder = work / f"emulated-{model}"
    if not folder.exists():
        work.mkdir(parents=True, exist_ok=True)
        request = make_request(
            model, "random", (), list(_ENGINES), [Precision.FP32, Precision.FP16]
        )
        export_bundle(request, folder, progress=progress)
    return Bundle.open(folder)


def _exported(bundle: Bundle) -> list[Subject]:
    return [
        Subject(str(a.precision), a, bundle.file(a))
        for a in bundle.manifest.artifacts
        # its kernels are those of fp32: only stored weights differ
        if (a.format, a.precision) != ("tflite", "fp16")
    ]


def _quantized(bundle: Bundle, work: Path) -> Subject:
    """The TFLite artifact with weights and activations in int8; its inputs and outputs stay."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.quantizer import Quantizer

    artifact = next(a for a in bundle.manifest.artifacts if (a.format, a.precision) == _FLOAT)
    source, path = bundle.file(artifact), work / f"emulated-{bundle.manifest.model}-int8.tflite"
    reference = Reference.load(bundle.path / bundle.manifest.reference)
    photographs = reference.inputs(artifact.stage, artifact.inputs[0])[:_MOST_PHOTOGRAPHS]
    floats: list[dict[str, object]] = [
        {"regex": ".*", "operation": side, "algorithm_key": "no_quantize", "op_config": {}}
        for side in ("INPUT", "OUTPUT")
    ]
    with noise_to(work / "quantizer.log"):
        ((key, signature),) = Interpreter(str(source)).get_signature_list().items()
        quantizer = Quantizer(str(source))
        quantizer.load_quantization_recipe([*recipe.static_wi8_ai8(), *floats])
        samples = [{signature["inputs"][0]: photograph} for photograph in photographs]
        path.write_bytes(quantizer.quantize(quantizer.calibrate({key: samples})).quantized_model)
    return Subject("int8", artifact, path)


@dataclass(frozen=True)
class Bench:
    """Counts artifacts of a bundle, and keeps each row in `folder`: counting takes a minute."""

    bundle: Bundle
    folder: Path
    runs: int

    def rows(
        self, cores: Sequence[str], subjects: Sequence[Subject], progress: Progress
    ) -> Iterator[Row]:
        """Count every subject on every core, unless that has been done."""
        reference = Reference.load(self.bundle.path / self.bundle.manifest.reference)
        self.folder.mkdir(parents=True, exist_ok=True)
        pairs = [(core, subject) for core in cores for subject in subjects]
        for number, (core, subject) in enumerate(pairs):
            progress(f"{subject} on {core}", number, len(pairs))
            emulator = Emulator(f"qemu:{core}", find_core(core), open_sandbox(f"qemu:{core}"))
            kept = self.folder / f"{self._key(emulator, subject)}.json"
            if not kept.exists():
                row = self._count(emulator, subject, reference)
                kept.write_text(row.model_dump_json(), encoding="utf-8")
            yield Row.model_validate_json(kept.read_text(encoding="utf-8"))

    def _key(self, emulator: Emulator, subject: Subject) -> str:
        what = [emulator.core.name, emulator.sandbox.path.name, emulator.ask_qemu("--version")]
        what += [sha256_of(subject.path), str(self.runs)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _count(self, emulator: Emulator, subject: Subject, reference: Reference) -> Row:
        artifact = subject.artifact
        engine = _ENGINES[artifact.format]
        program = Program(engine, subject.path, artifact.inputs, artifact.outputs)
        (spec,), (scores,) = artifact.inputs, artifact.outputs
        image = reference.inputs(artifact.stage, spec)[0]
        counted = emulator.run(program, {spec.name: image}, self.runs)
        expected = reference.outputs(artifact.stage, scores)[:1]
        answer = counted.outputs[scores.name][np.newaxis]
        return Row(
            core=emulator.core.name,
            engine=engine,
            precision=subject.precision,
            instructions=counted.instructions[-1],
            identical=counted.identical,
            by_class=counted.by_class,
            relative_error=compare(scores.name, expected, answer).relative_error,
        )


def _macs(model: str) -> int:
    """Multiply-accumulates of one inference, as PyTorch counts its convolutions and products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    card, family = find(model)
    (module,) = family.build(card, None).values()
    (spec,) = card.stages[0].inputs
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(torch.zeros(spec.shape))
    return int(counter.get_total_flops()) // 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
