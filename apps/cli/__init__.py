"""The command `phoneward`: one file a verb. The only place that prints or exits."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import typer

from phoneward.apps.cli import demo, devices, doctor, export, models, run, verify
from phoneward.apps.cli.interrupt import leave_nothing_behind
from phoneward.errors import PhonewardError

# what the parser raises: of the package click or, in newer releases, of typer's own copy of it
_UsageError: Any = typer.BadParameter.__base__

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
    "run": run,
    "models": models,
    "devices": devices,
    "demo": demo,
    "doctor": doctor,
}
for name, verb in VERBS.items():
    app.command(name, epilog=verb.EXAMPLE)(verb.command)


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 a gate failed, 2 bad input or interrupted."""
    leave_nothing_behind()
    try:
        result = app(standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except _UsageError as error:
        error.show()
        code = _report(error.format_message(), error.exit_code, shown=True)
    except PhonewardError as error:
        code = _report(str(error), error.exit_code)
    except BrokenPipeError:
        code = 0
    sys.exit(code)


def _report(message: str, code: int, *, shown: bool = False) -> int:
    if not shown:
        print(f"error: {message}", file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"error": message}))
    return code
