"""``facecaption ui`` where it cannot listen, and what a full disk leaves of its home: one line that says what to change."""

from __future__ import annotations

import io
import os
import resource
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from command_line import invoke
from facecaption_assets.commands import ui
from facecaption_assets.commands.instance import RunFailedError, prepare_home
from facecaption_assets.settings import Settings
from facecaption_ml.storage.local_files import write_file
from facecaption_ml.storage.lock import LockedError, exclusive
from loopback import free_port


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a command sets in it ends with the test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("8.8.8.8", ["of 8.8.8.8", "choose an address of this machine with --host"]),
        ("no-such-host.invalid", ["'no-such-host.invalid'", "choose another with --host"]),
        ("http://127.0.0.1", ["'http://127.0.0.1'", "choose another with --host"]),
        ("x" * 70, ["no name of a host", "choose another with --host"]),
    ],
)
def test_a_host_that_cannot_be_listened_on(tmp_path: Path, host: str, words: list[str]) -> None:
    done = invoke("ui", "--host", host, "--port", str(free_port()), home=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line
    assert "--port" not in line


@pytest.mark.parametrize("there", ["0.0.0.0", "127.0.0.1"])
def test_a_port_that_another_program_has(tmp_path: Path, there: str) -> None:
    with socket.create_server((there, 0)) as server:
        port = server.getsockname()[1]
        done = invoke("ui", "--port", str(port), home=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"Error: cannot listen on port {port} of 127.0.0.1 (Address already in use): "
        "stop what does, or choose another with --port\n"
    )


def test_the_last_words_of_a_server_are_no_traceback() -> None:
    stamp = "2026-11-29 16:51:05 +0000 - dagster"
    said = io.StringIO(
        f"{stamp} - INFO - Dagster services shut down.\n{stamp} - ERROR - A server is lost\n"
        'Traceback (most recent call last):\n  File "dev.py", line 298, in dev\n    raise Exception(\n'
        "Exception: dagster-webserver process shut down unexpectedly\n"
    )
    last: deque[str] = deque(maxlen=3)
    ui._pass_on(mock.Mock(), said, last)
    assert list(last) == [
        "16:51:05 ERROR: A server is lost",
        "Exception: dagster-webserver process shut down unexpectedly",
    ]


@contextmanager
def _no_room() -> Iterator[None]:
    """Within the block no file takes a byte, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_first_start_on_a_full_disk_leaves_no_empty_configuration(tmp_path: Path) -> None:
    config = tmp_path / "dagster" / "dagster.yaml"
    with pytest.raises(RunFailedError, match=r"cannot write .*dagster \(FACECAPTION_HOME\)"), _no_room():
        prepare_home(Settings(home=tmp_path))
    assert not any(config.parent.iterdir())
    config.write_text("")  # as a start that was killed may have left it
    prepare_home(Settings(home=tmp_path))
    assert "max_concurrent_runs: 1" in config.read_text()
    config.write_text("telemetry: {enabled: false}  # the user's own\n")
    prepare_home(Settings(home=tmp_path))
    assert config.read_text() == "telemetry: {enabled: false}  # the user's own\n"


def test_a_lock_holds_on_a_full_disk(tmp_path: Path) -> None:
    with (
        _no_room(),
        exclusive(tmp_path / "lock", "the UI"),
        pytest.raises(LockedError, match="the UI is at work already: wait"),
        exclusive(tmp_path / "lock", "the UI"),
    ):
        raise AssertionError("there are two")


def test_a_file_that_a_user_wants_on_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"search\.jpg"), _no_room():
        write_file(tmp_path / "search.jpg", b"picture")
    write_file(tmp_path / "search.jpg", "text \u00fc")
    assert (tmp_path / "search.jpg").read_bytes() == "text \u00fc".encode()
