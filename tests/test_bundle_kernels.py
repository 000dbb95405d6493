"""A bundle says what its artifacts compute, and an older one says that it does not."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phoneward.bundle import Artifact, Bundle
from phoneward.errors import ArtifactChanged, BundleError
from phoneward.export.kernels.names import kernels_of_card
from phoneward.export.models import find
from phoneward.export.models.family import Knobs
from phoneward.names import Precision
from phoneward.profiles.bundle_kernels import kernels_in, stages_in


def test_an_export_carries_the_kernels_of_its_rewritten_stages(tam_bundle: Bundle) -> None:
    tam_bundle.check_files()
    stages = stages_in(tam_bundle, "onnx", Precision.FP32)
    assert [stage.stage for stage in stages] == ["encode", "prompt", "propagate", "memorize"]
    assert all(sum(kernel.macs for kernel in stage.kernels) > 1e7 for stage in stages)
    assert not any(stage.unknown for stage in stages)
    stated = {path for path, _ in tam_bundle.manifest.checksums()}
    assert {f"kernels/{stage.stage}-onnx-fp32.json" for stage in stages} <= stated


@pytest.mark.matrix
def test_they_are_those_of_the_model_by_name(tam_bundle: Bundle) -> None:
    card, family = find("efficienttam_nano")
    card = family.configure(card, Knobs(memory_slots=2))
    from phoneward.export.recipe import Recipe

    assert stages_in(tam_bundle, "onnx", Precision.FP32) == kernels_of_card(card, Recipe("onnx"))


def test_reading_them_needs_no_torch(tam_bundle: Bundle) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from phoneward.bundle import Bundle\n"
        "from phoneward.names import Precision\n"
        "from phoneward.profiles.bundle_kernels import stages_in\n"
        f"print(len(stages_in(Bundle.open({str(tam_bundle.path)!r}), 'onnx', Precision.FP32)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, "4\n"), answer.stderr


def test_a_bundle_without_them_says_to_export_again(bundle: Bundle) -> None:
    artifact = bundle.manifest.artifacts[0]
    with pytest.raises(BundleError, match="older Phoneward; run `phoneward export tiny` again"):
        kernels_in(bundle, artifact)


def test_what_was_not_exported_whole_has_no_stages(tam_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="not exported whole as onnx-fp16"):
        stages_in(tam_bundle, "onnx", Precision.FP16)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"stage": "encode", "kernels": [{"kind": "nothing"}]}']
)
def test_damaged_kernels_are_found(tam_bundle: Bundle, text: str, tmp_path: Path) -> None:
    artifact = tam_bundle.manifest.artifacts[0]
    assert artifact.kernels is not None
    copy = dataclasses.replace(tam_bundle, path=tmp_path)
    (tmp_path / "kernels").mkdir()
    with pytest.raises(BundleError, match="missing"):
        kernels_in(copy, artifact)
    shutil.copyfile(tam_bundle.path / artifact.kernels, tmp_path / artifact.kernels)
    assert kernels_in(copy, artifact) == kernels_in(tam_bundle, artifact)
    (tmp_path / artifact.kernels).write_text(text)
    with pytest.raises(ArtifactChanged):
        kernels_in(copy, artifact)
    with pytest.raises(BundleError, match="as kernels"):
        kernels_in(copy, _with_the_checksum_of(artifact, tmp_path))


def _with_the_checksum_of(artifact: Artifact, folder: Path) -> Artifact:
    from phoneward.bundle import sha256_of

    found = sha256_of(folder / str(artifact.kernels))
    return artifact.model_copy(update={"kernels_sha256": found})
