"""`phoneward train`: networks that Phoneward trains by itself, one command a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phoneward.apps.cli import train_nano
from phoneward.apps.cli.output import JsonFlag, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from phoneward.export.train.cbnet.record import Record

EXAMPLE = "Example: phoneward train cbnet --data fashion-mnist -o clothes"

app = typer.Typer(no_args_is_help=True, help="Train a small network on this machine.")
app.command("efficienttam-nano", epilog=train_nano.EXAMPLE)(train_nano.command)


@app.command("cbnet", epilog=EXAMPLE)
def cbnet(
    data: Annotated[
        str,
        typer.Option(
            help="mnist, fashion-mnist, kmnist, a folder of IDX files, or a folder of images by "
            "class.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the training.")],
    seed: Annotated[int, typer.Option(min=0, help="Of all that is left to chance.")] = 0,
    autoencoder: Annotated[
        str | None,
        typer.Option(
            help=r"Widths of its inner layers \[default: those published for the data].",
            metavar="WIDTHS",
        ),
    ] = None,
    exit_entropy: Annotated[
        float | None,
        typer.Option(
            min=0,
            help=r"An image below it leaves at the exit, in nats \[default: as published for the "
            "data, else chosen on held-out images].",
        ),
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Also train a hybrid to stand behind an exit.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Instead of every network's own number.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for PyTorch.")] = 2,
    json_output: JsonFlag = False,
) -> None:
    """Train LeNet, BranchyNet, its light network and CBNet on grey images of 28 x 28.

    What is finished in the folder is not trained again, and what was interrupted goes on: the same
    command resumes. Each network becomes a file that `export NAME --weights FILE` takes.
    """
    from phoneward.export.train.data import open_dataset

    # bad input is found before torch is imported, which takes seconds
    widths = _widths(autoencoder)
    dataset = open_dataset(data, seed=seed)

    import torch

    from phoneward.export.train.cbnet.pictures import write_sheet
    from phoneward.export.train.cbnet.plan import plan_for
    from phoneward.export.train.cbnet.run import run

    torch.set_num_threads(threads)
    plan = plan_for(
        dataset,
        seed=seed,
        autoencoder=widths,
        exit_entropy=exit_entropy,
        epochs=epochs,
        hybrid=hybrid,
    )
    with progress_bar(quiet=json_output or not sys.stderr.isatty()) as progress:
        record = run(dataset, plan, output, progress)
    sheet = write_sheet(dataset, output)
    if json_output:
        print_json({**record.model_dump(mode="json"), "folder": str(output.absolute())})
        return
    _print(record, output, sheet)


def _widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of widths such as 512,384,256,64")
    return tuple(int(part) for part in parts)


def _print(record: Record, output: Path, sheet: Path) -> None:
    title = f"{record.data}: {record.test_images} test images, in PyTorch"
    columns = ("network", "test accuracy", "held-out accuracy", "leave at the exit")
    print_table(title, columns, _rows(record))
    entropy = record.test.branchynet.exit_entropy
    print(
        f"Hard: {record.hard_rate:.2%} of the training images do not leave at BranchyNet's exit "
        f"(entropy {entropy:.3g} or more)"
    )
    print(f"Conversions: {sheet}")
    print(f"Next: phoneward export cbnet --weights {output / 'cbnet.safetensors'} --device DEVICE")


def _rows(record: Record) -> list[tuple[str, ...]]:
    test, held = record.test, record.held_out
    rows: list[tuple[str, ...]] = [
        (name, f"{share:.2%}", f"{held.accuracies[name]:.2%}", "")
        for name, share in test.accuracies.items()
    ]
    exits = [("branchynet", test.branchynet, held.branchynet)]
    if test.exit_hybrid and held.exit_hybrid:
        exits.append(("exit_hybrid", test.exit_hybrid, held.exit_hybrid))
    rows += [
        (name, f"{one.accuracy:.2%}", f"{other.accuracy:.2%}", f"{one.exit_rate:.2%}")
        for name, one, other in exits
    ]
    return rows
