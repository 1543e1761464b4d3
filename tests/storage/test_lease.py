"""Work that one process at a time does on a store, in a folder and on S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from at_once import at_once
from facecaption_ml.storage.lease import working_alone
from facecaption_ml.storage.lock import LockedError
from facecaption_ml.storage.objects import open_objects
from facecaption_ml.storage.store import Store
from servers import s3_options

pytestmark = pytest.mark.processes
LEASE_S = 3.0
_HOLDER = """
import json, sys, time
from facecaption_ml.storage.lease import working_alone
from facecaption_ml.storage.objects import open_objects
given = json.loads(sys.argv[1])
with working_alone(open_objects(given["root"], given["options"]), "work", "the work", lease_s=given["lease_s"]) as check:
    print("has it", flush=True)
    for line in sys.stdin:
        try:
            check()
            print("still alone", flush=True)
        except Exception as error:
            print(error, flush=True)
"""
_COUNT = """
for _ in range(4):
    with store.working_alone("count", "the count"):
        found = int(store.read_bytes("number")) if store.exists("number") else 0
        time.sleep(0.02)
        store.write_bytes("number", str(found + 1).encode())
"""


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    if request.param == "folder":
        return str(tmp_path / "store"), {}
    return f"s3://data/{uuid.uuid4().hex}", s3_options(request.getfixturevalue("s3_server"))


@pytest.fixture
def holder(place: tuple[str, dict[str, str]]) -> Iterator[subprocess.Popen[str]]:
    given = json.dumps({"root": place[0], "options": place[1], "lease_s": LEASE_S})
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "has it\n"
    yield process
    process.kill()
    process.wait()


def _take(place: tuple[str, Mapping[str, str]], wait_s: float, said: list[str] | None = None) -> None:
    on_wait = (said if said is not None else []).append
    with working_alone(
        open_objects(*place), "work", "the work", wait_s=wait_s, lease_s=LEASE_S, on_wait=on_wait
    ) as check:
        check()


def test_processes_that_take_turns_lose_no_change(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    prepared = "from facecaption_ml.storage.store import Store\nstore = Store(given['root'], given['options'])"
    ended = at_once(tmp_path / "signs", prepared, _COUNT, [{"root": place[0], "options": place[1]}] * 3)
    assert [one.returncode for one in ended] == [0, 0, 0], [one.stderr for one in ended]
    assert Store(*place).read_bytes("number") == b"12"


def test_one_that_is_at_work_is_waited_for_by_name_as_long_as_it_lives(
    place: tuple[str, dict[str, str]], holder: subprocess.Popen[str]
) -> None:
    said: list[str] = []
    with pytest.raises(
        LockedError, match=rf"^the work is at work already \(process {holder.pid}.*, since .*wait for its end"
    ):
        _take(place, 2 * LEASE_S, said)
    assert [line.partition(",")[0].split(" on ")[0] for line in said] == [
        f"waiting: the work is at work already (process {holder.pid}"
    ]


def test_one_that_was_killed_is_followed_by_the_next(
    place: tuple[str, dict[str, str]], holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    _take(place, 10 * LEASE_S)
    _take(place, 0)  # and that one has given it back


@pytest.mark.s3
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_holder_that_slept_while_another_took_its_place_knows_it(
    place: tuple[str, dict[str, str]], holder: subprocess.Popen[str]
) -> None:
    assert holder.stdin
    assert holder.stdout
    os.kill(holder.pid, signal.SIGSTOP)
    _take(place, 10 * LEASE_S)
    os.kill(holder.pid, signal.SIGCONT)
    time.sleep(LEASE_S / 2)
    holder.stdin.write("?\n")
    holder.stdin.flush()
    assert "held up for so long that another may be at work" in holder.stdout.readline()
