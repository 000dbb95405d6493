"""The command line: the verbs put together, and every way it ends."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from phoneward import __version__
from phoneward.apps.cli import (
    calibrate,
    compare,
    demo,
    devices,
    doctor,
    evaluate,
    export,
    lint,
    models,
    predict,
    profile,
    report,
    run,
    track,
    train,
    verify,
)
from phoneward.errors import PhonewardError

# what the parser raises: of the package click or, in newer releases, of typer's own copy of it
_UsageError: Any = typer.BadParameter.__base__

# of BSD's sysexits.h: a fault of the program, not of its input
_FAULT = 70

app = typer.Typer(
    name="phoneward",
    help="Latency-targeted vision models, from PyTorch to the phone.",
    epilog="Example: phoneward export efficientnet_lite0 --device iphone-15-pro -o lite0",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = {
    "export": export,
    "verify": verify,
    "lint": lint,
    "run": run,
    "track": track,
    "evaluate": evaluate,
    "profile": profile,
    "predict": predict,
    "calibrate": calibrate,
    "compare": compare,
    "report": report,
    "models": models,
    "devices": devices,
    "demo": demo,
    "doctor": doctor,
}
for name, verb in VERBS.items():
    app.command(name, epilog=verb.EXAMPLE)(verb.command)
# one command a recipe: each has options of its own
app.add_typer(train.app, name="train")


def _version(asked: bool) -> None:
    if asked:
        print(f"phoneward {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def run_app() -> NoReturn:
    """Run the command line and exit.

    0: done. 1: a gate failed. 2: bad input, no room, or interrupted. 3: a latency target is out of
    reach. 70: a fault of Phoneward's, with its traceback.
    """
    # where whoever started this process closed a stream, Python has None
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        result = app(standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except _UsageError as error:
        error.show()
        code = _report(error.format_message(), error.exit_code, shown=True)
    except PhonewardError as error:
        code = _report(str(error), error.exit_code)
    except (BrokenPipeError, SystemExit):
        # whoever read had enough, as `head`; the parser turns that into an exit by itself
        code = 0
    except OSError as error:
        code = _report(f"{error.filename or 'input or output'}: {error.strerror or error}", 2)
    except Exception as error:  # noqa: BLE001 - programs read JSON even then, people get the whole story
        traceback.print_exc()
        code = _report(f"{type(error).__name__}: {error} (please report this)", _FAULT)
    _exit(code)


def _report(message: str, code: int, *, shown: bool = False) -> int:
    if not shown:
        print(f"error: {message}", file=sys.stderr)
    if "--json" in sys.argv:
        with contextlib.suppress(OSError):  # standard output itself may be what failed
            print(json.dumps({"error": message}), flush=True)
    return code


def _exit(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:
        # the interpreter would try again, and complain, when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)
