"""Requests for removal that are recorded at the same moment by several processes: none is lost."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from at_once import at_once
from facecaption_ml.dataset.removals import RemovalList
from servers import s3_options

_PREPARED = """
import datetime
from facecaption_ml.dataset.removal_requests import record_requests
"""
_WORK = """
for k in range(15):
    url = f"http://a.test/{given['number']}-{k}.jpg"
    record_requests(given["path"], [url], "by letter", datetime.date(2026, 5, 4), given["options"])
"""


@pytest.mark.processes
@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.s3)])
def test_requests_recorded_at_the_same_moment_are_all_in_the_list(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path, options = str(tmp_path / "removals.txt"), dict[str, str]()
    if place == "s3":
        path, options = f"s3://data/{uuid.uuid4().hex}/removals.txt", s3_options(request.getfixturevalue("s3_server"))
    ended = at_once(tmp_path / "signs", _PREPARED, _WORK, [{"path": path, "options": options}] * 3)
    assert [one.returncode for one in ended] == [0, 0, 0], [one.stderr for one in ended]
    assert RemovalList.read(path, options).urls == {f"http://a.test/{n}-{k}.jpg" for n in range(3) for k in range(15)}
