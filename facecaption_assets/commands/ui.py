"""``facecaption ui``: Dagster's webserver, daemon and code server as children of this process, one set to a home."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import click
import dagster as dg

from facecaption_assets.commands.dead_runs import UI_LOCK, fail_dead_runs
from facecaption_assets.commands.instance import CODE_LOCATION, prepare_home
from facecaption_assets.commands.terminal_lines import TerminalLines
from facecaption_assets.machines.executors import register_pools
from facecaption_assets.settings import PREFIX, Settings
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.processes import interrupts
from facecaption_ml.processes.tree import environment_of_children
from facecaption_ml.storage.local_files import atomic_write
from facecaption_ml.storage.lock import LockedError, exclusive

_READY_SECONDS: Final = 180.0
_SWEEP_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 5.0
_LAST_LINES: Final = 3
_PORT_TAKEN: Final = "address already in use"


class UiError(FaceCaptionError):
    """The UI cannot be started here; the message says why and what to do."""

    exit_status = 2


def run_ui(settings: Settings, host: str, port: int) -> None:
    """Serve the UI of the home until a signal comes or a server ends.

    Raises UiError before anything is started where the port is taken or another UI works on this home, and later where a
    server ends by itself.
    """
    home = prepare_home(settings)
    os.environ[f"{PREFIX}HOME"] = str(settings.home)
    interrupts.advise("", _STOP_SECONDS)
    # The port is locked as well: that of a UI that is starting is still free.
    on_port = Path(tempfile.gettempdir(), f"facecaption-ui-{os.getuid()}-{port}.lock")
    with (
        _locked(home / UI_LOCK, f"the UI of {home.parent}"),
        _locked(on_port, f"a UI on port {port}"),
        dg.DagsterInstance.get() as instance,
    ):
        _require_free(host, port)
        fail_dead_runs(instance, home, is_ui=True)
        if settings.deploy.executor != "kubernetes":
            register_pools(instance, settings.deploy)
        click.echo("starting the Dagster UI …", err=True)
        with _services(home, host, port) as (process, lines):
            _announce_when_ready(process, host, port)
            swept = time.monotonic()
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - swept > _SWEEP_SECONDS:  # of runs from the shell, which no daemon watches
                    fail_dead_runs(instance, home)
                    swept = time.monotonic()
            interrupts.halt_if_ending()
            said = "; it said: " + " | ".join(lines) if lines else ""
            raise UiError(f"the UI's servers have ended by themselves (exit status {process.returncode}){said}")


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    """As ``exclusive``, but that it raises UiError."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(path, what))
        except LockedError as error:
            raise UiError(str(error)) from None
        yield


def _require_free(host: str, port: int) -> None:
    """Raises UiError where an address of the host cannot be listened on, with what to change."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else "no name of a host"
        raise UiError(f"cannot listen on {host!r} ({what}): choose another with --host") from None
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)  # binding alone goes well beside another that only binds
        except OSError as error:
            advice = {
                errno.EADDRINUSE: "stop what does, or choose another with --port",
                errno.EACCES: "choose one from 1024 up with --port",
            }.get(error.errno or 0, "choose an address of this machine with --host")
            what = error.strerror or str(error)
            raise UiError(f"cannot listen on port {port} of {host} ({what}): {advice}") from None


@contextlib.contextmanager
def _services(home: Path, host: str, port: int) -> Iterator[tuple[subprocess.Popen[str], deque[str]]]:
    """``dagster dev`` and its last lines of errors. All of its processes end with the block."""
    location = {"module_name": "facecaption_assets.definitions", "location_name": CODE_LOCATION}
    workspace = home / "workspace.yaml"
    with atomic_write(workspace) as file:
        file.write(json.dumps({"load_from": [{"python_module": location}]}).encode())  # JSON is YAML
    command = [sys.executable, "-m", "facecaption_assets.commands.dagster_dev", "-w", str(workspace)]
    process = subprocess.Popen(
        [*command, "-h", host, "-p", str(port)],
        env={**os.environ, **environment_of_children()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout
    last: deque[str] = deque(maxlen=_LAST_LINES)
    reader = threading.Thread(target=_pass_on, args=(process, process.stdout, last), daemon=True)
    reader.start()
    try:
        yield process, last
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _pass_on(process: subprocess.Popen[str], output: IO[str], last: deque[str]) -> None:
    """What people want to know goes to the terminal; errors are remembered too."""
    lines = TerminalLines()
    for line in output:
        shown = lines.shown(line)
        if shown is None:
            continue
        if lines.is_error and not shown.startswith((" ", "Traceback ")):  # what happened, not where in the code
            last.append(" ".join(shown.split()))
        if _PORT_TAKEN in line:  # by another program since it was looked at: the webserver stays, and listens nowhere
            last.append(" ".join(shown.split()))
            os.killpg(process.pid, signal.SIGKILL)
        if not interrupts.is_ending():
            sys.stderr.write(shown + "\n")
            sys.stderr.flush()


def _announce_when_ready(process: subprocess.Popen[str], host: str, port: int) -> None:
    """Print the address once the webserver answers there. Raises UiError where it does not."""
    there = f"[{host}]" if ":" in host else host
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None:
        if _answers(asked, port):
            click.echo(f"Dagster UI: http://{there}:{port}/asset-groups  (Ctrl-C stops it)", err=True)
            return
        if time.monotonic() > deadline:
            raise UiError(f"the UI has not answered on port {port} of {host} within {_READY_SECONDS:.0f} s")
        time.sleep(0.3)


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
