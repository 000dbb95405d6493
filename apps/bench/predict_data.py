"""`python -m phoneward.apps.bench.predict_data ROWS NAMES`: carry published rows into profiles."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from phoneward.apps.bench.options import errors_end
from phoneward.apps.bench.predict_baselines import PLAIN, plain_features
from phoneward.apps.bench.predict_rows import COLUMNS, carry
from phoneward.export.kernels.names import kernels_by_name
from phoneward.profiles.predict import features
from phoneward.profiles.predict.rows import MODELS, ROWS

DATA = Path(__file__).parents[2] / "profiles" / "predict" / "data"


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Write `rows.csv` and `models.csv`; returns 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="published latencies, CSV")
    parser.add_argument("names", type=Path, help="name of each model's graph, CSV")
    parser.add_argument("-o", "--output", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    names = {
        (line["model"], line["variant"], line["input_resolution"]): line["name"]
        for line in _lines(options.names)
        if line["name"]
    }
    rows = carry(_lines(options.rows), names)
    used = sorted({row["model"] for row in rows if not row["excluded"]})
    models = [_model(name) for name in used]
    _write(options.output / ROWS, COLUMNS, rows)
    _write(options.output / MODELS, ("model", *features.COLUMNS, *PLAIN), models)
    sys.stdout.write(f"{len(rows)} rows, {len(models)} models\n")
    return 0


def _model(name: str) -> dict[str, str]:
    (stage,) = kernels_by_name(name)
    row = features.graph_features(stage.kernels)
    amounts = {
        **dict(zip(features.COLUMNS, row, strict=True)),
        **plain_features(stage.kernels),
    }
    return {"model": name, **{column: f"{amount:.6g}" for column, amount in amounts.items()}}


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
