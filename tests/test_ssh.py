"""The way to a board: a real OpenSSH server, and all that may be wrong with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phoneward.errors import PlaceError, PlaceUnreachable, WrongArchitecture
from phoneward.profiles.measure.board import client, link
from phoneward.profiles.measure.board.client import Address, parse_address
from phoneward.profiles.measure.board.link import Link, leased
from tests.ssh_board import Board, sshd, user_of


@contextmanager
def held(board: Board, python: str = "python3") -> Iterator[Link]:
    with leased(parse_address(board.address), python) as link:
        yield link


NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}", fullmatch=True)


@given(NAMES, st.none() | NAMES, st.none() | st.integers(1, 65535))
def test_an_address_is_read_as_it_is_written(host: str, user: str | None, port: int | None) -> None:
    address = Address(host, user, port)
    assert parse_address(str(address).removeprefix("ssh://")) == address


def test_numbers_of_the_sixth_version_stand_in_brackets() -> None:
    assert parse_address("pi@[fe80::1%eth0]:22") == Address("fe80::1%eth0", "pi", 22)
    assert str(parse_address("[::1]:2222")) == "ssh://[::1]:2222"


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "a@-b", "-l@b", "a b", "b:0", "b:99999", "b:x", "a@b@c", "b;c"]
)
def test_what_is_no_address_never_reaches_ssh(text: str) -> None:
    with pytest.raises(PlaceError, match="user@host"):
        parse_address(text)


def test_a_folder_there_takes_files_and_runs_programs(board: Board) -> None:
    said: list[str] = []
    with held(board) as link:
        assert Path(link.facts.folder).parent == board.tmp
        assert link.facts.cache == str(board.cache / "phoneward")
        link.put("deep/er/file", b"\x00\xff" * 300_000)
        assert link.get("deep/er/file") == b"\x00\xff" * 300_000
        link.put("empty", b"")
        assert link.get("empty") == b""
        ended = link.run(
            ["sh", "-c", "echo $WORD; echo two >&2; exit 3"], {"WORD": "ö"}, said.append
        )
        assert (ended.code, ended.said) == (3, ["ö", "two"])
        assert said == ended.said
        assert link.run(["sh", "-c", "kill -SEGV $$"]).code == -signal.SIGSEGV
    assert link.removed
    assert not list(board.tmp.iterdir())


def test_what_fails_there_is_told_and_ends_nothing(board: Board) -> None:
    with held(board) as link:
        with pytest.raises(PlaceError, match="nothere: No such file"):
            link.get("nothere")
        with pytest.raises(PlaceError, match="no-such-program: No such file"):
            link.run(["no-such-program"])
        link.put("text", b"no program")
        with pytest.raises(PlaceError, match="denied"):
            link.run(["./text"])
        assert link.run(["true"]).code == 0


def test_processes_that_left_their_parents_are_ended_too(board: Board) -> None:
    with held(board) as link:
        link.run(["sh", "-c", "setsid sh -c 'trap \"\" TERM HUP; sleep 100 & wait' & exit 0"])
        time.sleep(0.2)
        assert len(board.processes()) >= 4
    board.wait_until_clean()


def test_what_was_to_be_discarded_is_removed_as_well(board: Board, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    (part / "file").touch()
    with held(board) as link:
        link.discard(str(part))
    assert not part.exists()


SLEEP = ["sh", "-c", "touch running; sleep 100 & sleep 100"]


def lost(board: Board, disturb: Callable[[], object]) -> PlaceError:
    """Disturb a board while something runs on it; return the error."""

    def wait_and_disturb() -> None:
        while not list(board.tmp.glob("*/running")):
            time.sleep(0.02)
        disturb()

    with held(board) as link:
        thread = threading.Thread(target=wait_and_disturb)
        thread.start()
        with pytest.raises(PlaceUnreachable) as caught:
            link.run(SLEEP)
        thread.join()
    return caught.value


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "which", ["the server's process", "its child", "the keeper", "the lease", "the client"]
)
def test_a_board_that_goes_away_is_left_clean(board: Board, which: str) -> None:
    def disturb() -> None:
        connections = board.connections()
        named = [
            p for p in board.processes() if b"lease" in Path(f"/proc/{p}/cmdline").read_bytes()
        ]
        keeper, lease = sorted(named)[-2:]
        if which == "the client":
            clients = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            kill(next(int(p) for p in clients if b"-T" in Path(f"/proc/{p}/cmdline").read_bytes()))
        else:
            kill(
                {
                    "the server's process": connections[0],
                    "its child": connections[-1],
                    "the keeper": keeper,
                    "the lease": lease,
                }[which]
            )

    error = lost(board, disturb)
    assert "went away in the middle" in error.reason
    board.wait_until_clean()


def test_a_board_that_freezes_is_given_up_on_both_sides(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_PATIENCE_S", 3.0)
    frozen: list[int] = []

    def disturb() -> None:
        frozen.extend(board.connections())
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)

    error = lost(board, disturb)
    assert "no sign of life for 3 s" in error.reason
    # the connection is frozen still: what runs there gives up by itself
    board.wait_until_clean()
    for pid in frozen:
        os.kill(pid, signal.SIGKILL)


def test_an_interrupted_user_leaves_nothing_there(board: Board) -> None:
    # jobs in the background are started with SIGINT ignored, and so are their children
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), held(board) as link:
            threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
            link.run(SLEEP)
    finally:
        signal.signal(signal.SIGINT, before)
    board.wait_until_clean()


def refused(board: Board) -> PlaceError:
    with pytest.raises(PlaceError) as caught, held(board):
        raise AssertionError("it let us in")
    return caught.value


def test_a_host_key_that_has_changed_is_never_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sshd(tmp_path) as board:
        user_of(board, monkeypatch)
        port = board.port
    for name in ("host", "host.pub"):
        (tmp_path / name).unlink()
    with sshd(tmp_path) as board:
        known = tmp_path / "user" / "known_hosts"
        known.write_text(known.read_text().replace(f":{port} ", f":{board.port} "))
        error = refused(board)
        assert isinstance(error, PlaceUnreachable)
        assert f"ssh-keygen -R '[127.0.0.1]:{board.port}'" in error.reason
        assert "host key has changed" in error.reason
        assert not list(board.tmp.iterdir())


def test_an_unknown_host_key_is_never_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sshd(tmp_path) as board:
        user_of(board, monkeypatch, known=False)
        error = refused(board)
        assert isinstance(error, PlaceUnreachable)
        assert "not known here" in error.reason
        assert not (tmp_path / "user" / "known_hosts").exists()


def test_a_board_that_does_not_know_our_key_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sshd(tmp_path) as board:
        user_of(board, monkeypatch)
        other = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")]
        subprocess.run(other, check=True)
        (tmp_path / "id.pub").write_text((tmp_path / "other.pub").read_text())
        error = refused(board)
        assert isinstance(error, PlaceUnreachable)
        assert "Permission denied (publickey)" in error.reason


def test_a_board_that_is_down_or_silent(
    board_server: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_of(board_server, monkeypatch)
    monkeypatch.setattr(client, "CONNECT_S", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", port=silent.getsockname()[1])
        with pytest.raises(PlaceUnreachable, match="Connection refused"):
            Link(address, "python3")
        silent.listen()
        with pytest.raises(PlaceUnreachable, match="[Tt]imed out"):
            Link(address, "python3")
    with pytest.raises(PlaceUnreachable, match="resolve"):
        Link(Address("no-such-board.invalid"), "python3")


def test_a_login_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_S", 1)
    with sshd(tmp_path, forced="sleep 30") as board:
        user_of(board, monkeypatch)
        assert "no answer within 2 s" in refused(board).reason


def test_a_greeting_before_our_own_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced = 'echo Welcome; echo; sh -c "$SSH_ORIGINAL_COMMAND"'
    with sshd(tmp_path, forced=forced) as board:
        user_of(board, monkeypatch)
        with held(board) as link:
            assert link.run(["echo", "hello"]).said == ["hello"]


def test_what_is_no_shell_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(tmp_path, forced="echo only git is allowed here") as board:
        user_of(board, monkeypatch)
        assert "a shell was expected there; it says: only git" in refused(board).reason


@pytest.mark.parametrize(
    ("uname", "words"),
    [
        ('[ "$1" = -s ] && echo Linux || echo armv7l', "is armv7l"),
        ('[ "$1" = -s ] && echo Darwin || echo arm64', "runs Darwin, not Linux"),
    ],
)
def test_a_machine_that_no_engine_runs_on_is_refused_before_anything(
    board: Board, uname: str, words: str
) -> None:
    program = board.program("uname", uname)
    try:
        error = refused(board)
    finally:
        program.unlink()
    assert isinstance(error, WrongArchitecture)
    assert words in error.reason


def test_a_board_without_python_is_told(board: Board) -> None:
    with pytest.raises(PlaceError, match="no python9 there; install"), held(board, "python9"):
        pass
