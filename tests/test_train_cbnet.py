"""The training of CBNet and its company on a small data set, from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from phoneward.errors import InvalidSpec
from phoneward.export.models.cbnet.networks import Autoencoder
from phoneward.export.models.cbnet.settings import Settings, settings_of
from phoneward.export.train.cbnet import run as running
from phoneward.export.train.cbnet.batches import Augmentation, Batches, as_tensor, augmented
from phoneward.export.train.cbnet.easy_hard import (
    Judged,
    choose_exit_entropy,
    classes_of,
    easiest,
    judge,
)
from phoneward.export.train.cbnet.files import Origin, origin_of, read, save
from phoneward.export.train.cbnet.losses import ACTIVITY, conversion
from phoneward.export.train.cbnet.pictures import write_sheet
from phoneward.export.train.cbnet.plan import Plan, plan_for
from phoneward.export.train.cbnet.record import Record
from phoneward.export.train.cbnet.run import run
from phoneward.export.train.cbnet.training import Training, _mixed
from phoneward.export.train.data import KNOWN
from phoneward.export.train.data.dataset import Dataset, Split
from phoneward.export.train.folder import claimed, write_whole
from phoneward.export.train.loop import Schedule
from tests.small_digits import CLASSES, dataset, pictures


def plan(seed: int = 0, hybrid: bool = False) -> Plan:
    made = plan_for(dataset(), seed=seed, autoencoder=(64, 16), hybrid=hybrid)
    return replace(
        made,
        classifiers=Schedule(epochs=8, batch=32, rate=1e-2),
        autoencoder=Schedule(epochs=40, batch=32, rate=5e-3, decay=0.0),
        hybrid=Schedule(epochs=4, batch=32, rate=5e-3) if hybrid else None,
        augmentation=Augmentation(shift=1),
    )


def quiet(name: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("training")
    return folder, run(dataset(), plan(hybrid=True), folder, quiet)


def test_all_networks_learn(trained: tuple[Path, Record]) -> None:
    _, record = trained
    test = record.test
    assert test.accuracies["lenet"] > 0.9
    assert test.accuracies["cbnet"] > 0.8
    assert test.branchynet.accuracy_at_end > 0.9
    assert test.accuracies["cbnet_light"] == test.branchynet.accuracy_at_exit
    assert record.held_out.accuracies["lenet"] > 0.8
    assert set(record.losses) == {
        "lenet",
        "branchynet",
        "cbnet",
        "light-stride-8-16",
        "exit_hybrid",
    }
    assert record.train_images + record.held_out_images == len(dataset().train)


def test_targets_are_easy_training_images_of_their_class(trained: tuple[Path, Record]) -> None:
    folder, record = trained
    training = Training(dataset(), plan(), folder, quiet)
    branchynet = training.branchynet()
    judged = training.judged(branchynet)
    assert len(record.targets) == CLASSES
    for one, place in enumerate(record.targets):
        assert dataset().train.classes[place] == one
        (target,) = np.flatnonzero(training.places == place)
        assert judged.at_exit[target] == one
        same = (training.rest.classes == one) & (judged.at_exit == one)
        assert judged.entropies[target] == judged.entropies[same].min()


def test_hard_images_are_those_that_stay(trained: tuple[Path, Record]) -> None:
    folder, record = trained
    training = Training(dataset(), plan(), folder, quiet)
    hard = training.judged(training.branchynet()).entropies >= record.settings.exit_entropy
    assert sum(record.hard_per_class.values()) == hard.sum()
    assert record.hard_rate == pytest.approx(hard.mean())


def test_a_finished_training_is_not_trained_again(trained: tuple[Path, Record]) -> None:
    folder, record = trained
    files = {path: path.read_bytes() for path in folder.glob("*.safetensors")}

    def report(name: str, done: int, total: int) -> None:
        assert name == "test", f"{name} is trained again"

    again = run(dataset(), plan(hybrid=True), folder, report)
    assert again.test == record.test
    assert again.losses == record.losses
    assert {path: path.read_bytes() for path in folder.glob("*.safetensors")} == files


def test_another_autoencoder_keeps_the_other_networks(
    trained: tuple[Path, Record], tmp_path: Path
) -> None:
    folder, _ = trained
    for file in folder.glob("*.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    told: set[str] = set()
    other = plan()
    settings = other.settings.model_copy(update={"autoencoder": (24,)})
    run(
        dataset(),
        replace(other, settings=settings),
        tmp_path,
        lambda name, done, total: told.add(name),
    )
    assert told == {"cbnet", "test"}
    found = settings_of(tmp_path / "cbnet.safetensors")
    assert found is not None
    assert found.autoencoder == (24,)


def test_another_seed_makes_other_weights(trained: tuple[Path, Record], tmp_path: Path) -> None:
    folder, record = trained
    short = replace(plan(seed=1), classifiers=Schedule(epochs=1, batch=32))
    other = Training(dataset(), short, tmp_path, quiet)
    one = Training(dataset(), plan(), folder, quiet)
    assert not np.array_equal(other.places, one.places)
    other.lenet()
    one_lenet = read("lenet", folder / "lenet.safetensors", record.settings)
    other_lenet = read("lenet", tmp_path / "lenet.safetensors", record.settings)
    assert not torch.equal(one_lenet.stem.conv.weight, other_lenet.stem.conv.weight)


def test_another_training_is_refused(trained: tuple[Path, Record]) -> None:
    folder, _ = trained
    files = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(InvalidSpec, match=r"another seed \(0, not 1\); choose another output"):
        run(dataset(), plan(seed=1), folder, quiet)
    with pytest.raises(InvalidSpec, match="another images"):
        run(dataset(train=200), plan(), folder, quiet)
    assert {path: path.read_bytes() for path in files} == files


def test_two_processes_do_not_train_in_one_folder(trained: tuple[Path, Record]) -> None:
    folder, _ = trained
    training = Training(dataset(), plan(), folder, quiet)
    with (
        claimed(folder, training.identity),
        pytest.raises(InvalidSpec, match="another training is at work in it"),
    ):
        run(dataset(), plan(), folder, quiet)


def test_what_rests_on_a_network_is_made_again_with_it(
    trained: tuple[Path, Record], tmp_path: Path
) -> None:
    folder, record = trained
    for file in folder.glob("*.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = Training(dataset(), plan(), tmp_path, quiet)
    branchynet = read("branchynet", tmp_path / "branchynet.safetensors", record.settings)
    with torch.no_grad():
        branchynet.branch.classify.weight.mul_(1.5)
    other.save(branchynet, "branchynet", record.settings)
    told: set[str] = set()
    again = run(dataset(), plan(), tmp_path, lambda name, done, total: told.add(name))
    assert told == {"cbnet", "test"}
    assert set(again.losses) == {"lenet", "branchynet", "cbnet"}
    light = read("cbnet_light", tmp_path / "cbnet_light.safetensors", record.settings)
    cbnet = read("cbnet", tmp_path / "cbnet.safetensors", record.settings)
    for one in (light, cbnet.light):
        assert torch.equal(one.branch.classify.weight, branchynet.branch.classify.weight)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    write_whole(file, b"old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_damaged_weights_are_named(trained: tuple[Path, Record], tmp_path: Path) -> None:
    (tmp_path / "lenet.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidSpec, match=r"lenet\.safetensors: damaged weights; remove it"):
        run(dataset(), plan(), tmp_path, quiet)


def test_equal_weights_are_equal_files(trained: tuple[Path, Record], tmp_path: Path) -> None:
    folder, record = trained
    model = read("cbnet", folder / "cbnet.safetensors", record.settings)
    samples = torch.zeros(2, 28, 28, dtype=torch.uint8)
    for name in "abc":
        save(model, tmp_path / name, record.settings, samples, Origin("one training", (0.5, 0.25)))
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
    (tmp_path / "a").rename(tmp_path / "a.safetensors")
    again = read("cbnet", tmp_path / "a.safetensors", record.settings)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
    assert settings_of(tmp_path / "a.safetensors") == record.settings
    assert origin_of(tmp_path / "a.safetensors") == Origin("one training", (0.5, 0.25))


def test_weights_carry_samples_of_the_test_set(trained: tuple[Path, Record]) -> None:
    from safetensors.torch import load_file

    folder, _ = trained
    samples = load_file(folder / "cbnet.safetensors")["samples"].numpy()
    test = dataset().test
    assert samples.shape == (2 * CLASSES, 28, 28)
    for one in range(CLASSES):
        rows = np.flatnonzero(test.classes == one)[:2]
        np.testing.assert_array_equal(samples[2 * one : 2 * one + 2], test.images[rows])


def test_the_hybrid_keeps_lenets_accuracy_on_held_out_images(
    trained: tuple[Path, Record],
) -> None:
    folder, record = trained
    training = Training(dataset(), plan(hybrid=True), folder, quiet)
    settings = settings_of(folder / "exit_hybrid.safetensors")
    assert settings is not None
    assert record.test.exit_hybrid is not None
    assert settings.exit_entropy == record.test.exit_hybrid.exit_entropy
    held = as_tensor(training.held_out)
    model = read("exit_hybrid", folder / "exit_hybrid.safetensors", settings)
    right = judge(model, held).answers(settings.exit_entropy) == training.held_out.classes
    lenet = classes_of(training.lenet(), held) == training.held_out.classes
    best = max((judge(model, held).answers(t) == training.held_out.classes).mean() for t in (0, 9))
    assert right.mean() >= min(lenet.mean(), best)


def test_the_sheet_is_a_picture(trained: tuple[Path, Record]) -> None:
    folder, _ = trained
    with Image.open(write_sheet(dataset(), folder)) as sheet:
        assert sheet.size == (1200, 396)
        assert np.asarray(sheet).std() > 10


def test_cutting_is_the_exit(trained: tuple[Path, Record]) -> None:
    folder, record = trained
    branchynet = read("branchynet", folder / "branchynet.safetensors", record.settings)
    images = as_tensor(dataset().test)
    with torch.no_grad():
        torch.testing.assert_close(running.cut(branchynet, CLASSES)(images), branchynet(images)[0])


def test_the_conversions_loss_is_the_published_one() -> None:
    torch.manual_seed(0)
    model = Autoencoder((5, 3))
    images, targets = torch.rand(4, 1, 28, 28), torch.rand(4, 784)
    first = torch.relu(model.encoder[0](images.flatten(1)))
    second = model.encoder[1](first)
    out = torch.sigmoid(model.decoder(second))
    entropy = -(targets * out.log() + (1 - targets) * (1 - out).log()).mean()
    activity = (first.abs().sum() + second.abs().sum()) / 4
    torch.testing.assert_close(conversion(model, images, targets), entropy + ACTIVITY * activity)


def test_hard_images_become_a_quarter_of_an_epoch() -> None:
    hard = np.arange(100) < 5
    rows = _mixed(hard).numpy()
    assert set(rows) == set(range(100))
    assert hard[rows].mean() >= 0.25
    assert len(_mixed(np.zeros(10, bool))) == 10
    assert len(_mixed(np.ones(10, bool))) == 10


def _judged(entropies: list[float], early: list[int], late: list[int]) -> Judged:
    return Judged(np.array(entropies), np.array(early), np.array(late))


def test_the_easiest_image_must_be_right_at_the_exit() -> None:
    judged = _judged([0.1, 0.2, 0.3, 0.4], [1, 0, 1, 0], [0, 0, 1, 1])
    assert easiest(judged, np.array([0, 0, 1, 1]), 2).tolist() == [1, 2]
    wrong = _judged([0.3, 0.2], [1, 1], [0, 0])
    assert easiest(wrong, np.array([0, 0]), 1).tolist() == [1]


@given(st.integers(1, 40), st.integers(0, 2**31), st.floats(0, 1))
def test_the_exit_entropy_is_the_highest_that_is_accurate_enough(
    count: int, seed: int, least: float
) -> None:
    random = np.random.default_rng(seed)
    judged = Judged(
        random.random(count).round(1), random.integers(0, 2, count), random.integers(0, 2, count)
    )
    truth = random.integers(0, 2, count)
    chosen = choose_exit_entropy(judged, truth, least)
    accuracy = (judged.answers(chosen) == truth).mean()
    every = {
        threshold: (judged.answers(threshold) == truth).mean()
        for threshold in (*judged.entropies, 2.0)
    }
    enough = [threshold for threshold, found in every.items() if found >= least]
    if enough:
        assert accuracy >= least
        assert judged.exit_rate(chosen) == judged.exit_rate(max(enough))
    else:
        assert accuracy == pytest.approx(max(every.values()))


@given(st.integers(0, 3), st.integers(0, 1000))
def test_augmentation_moves_and_no_more(shift: int, seed: int) -> None:
    images = torch.zeros(3, 1, 28, 28)
    images[:, 0, 10:14, 9:12] = torch.rand(3, 4, 3)
    moved = augmented(images, Augmentation(shift), torch.Generator().manual_seed(seed))
    assert moved.shape == images.shape
    for before, after in zip(images[:, 0], moved[:, 0], strict=True):
        torch.testing.assert_close(after.sum(), before.sum())
        places = after.nonzero()
        assert places[:, 0].min() >= 10 - shift
        assert places[:, 0].max() <= 13 + shift
    if not shift:
        assert torch.equal(moved, images)


def test_an_epoch_has_every_chosen_image_once() -> None:
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 28, 28)
    batches = Batches(images, torch.arange(10), 5, Augmentation(shift=0))
    seen = [value for _, values in batches(torch.Generator().manual_seed(0)) for value in values]
    assert sorted(int(value) for value in seen) == list(range(10))
    for image, value in batches(torch.Generator().manual_seed(0)):
        assert torch.equal(image[:, 0, 0, 0], value.float())


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"autoencoder": (0,)}, {"exit_entropy": -1.0}, {"autoencoder": (99999,)}],
)
def test_plans_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidSpec):
        plan_for(dataset(), **options)  # type: ignore[arg-type]


def test_published_choices_are_taken_for_published_data() -> None:
    named = plan_for(famous("fashion-mnist"))
    assert named.settings.exit_entropy == 0.5
    assert named.settings.autoencoder == (512, 384, 256, 64)
    assert named.augmentation.shift == 0
    assert not named.chosen_entropy
    assert plan_for(dataset()).chosen_entropy
    assert plan_for(famous("mnist")).settings.exit_entropy == Settings().exit_entropy
    assert plan_for(dataset(name="mnist")).chosen_entropy, "a folder of that name alone"


def famous(name: str) -> Dataset:
    split = pictures(20, 0)
    ten = Split(split.images, np.arange(20) % 10)
    return Dataset(name, KNOWN[name].labels, ten, ten)
