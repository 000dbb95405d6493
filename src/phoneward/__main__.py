"""`python -m phoneward` is the command `phoneward`."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Be ready for an interrupt, then load the command line, which takes a while, and run it."""
    from phoneward.apps.cli.interrupt import leave_nothing_behind

    leave_nothing_behind()
    from phoneward.apps.cli.app import run_app

    run_app()


if __name__ == "__main__":
    main()
