"""`phoneward doctor --emulator`: prepare what `profile --on qemu:CPU` runs in."""

from __future__ import annotations

from phoneward.apps.cli.output import print_json, progress_bar

# what `prepare` tells: two downloads and three compilations
_STEPS = 5


def prepare_emulator(*, json_output: bool) -> int:
    """Download the engines for Arm and compile the runners, unless that is done; returns 0.

    Raises:
        PlaceError: QEMU or a compiler is not installed, or a step failed.
    """
    from phoneward.profiles.measure.emulator.prepare import prepare
    from phoneward.profiles.measure.emulator.sandbox import open_sandbox

    with progress_bar(quiet=json_output) as report:
        done = 0

        def count(step: str) -> None:
            nonlocal done
            done += 1
            report(step, done, _STEPS)

        prepare(count)
    sandbox = open_sandbox("qemu")
    if json_output:
        print_json({"path": str(sandbox.path), "tools": sandbox.record.tools})
    else:
        tools = ", ".join(f"{name} {version}" for name, version in sandbox.record.tools.items())
        print(f"The emulator is prepared: {sandbox.path}\nMade from {tools}.")
    return 0
