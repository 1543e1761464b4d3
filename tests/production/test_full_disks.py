"""A disk that fills under Dagster's own files: one line, exit status 1, and the next start goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import assert_one_line, start

SMALL = {
    "FACECAPTION_SAMPLE_SCENES": "24",
    "FACECAPTION_SHARD_SIZE": "12",
    "FACECAPTION_ATTRIBUTE_WEIGHTS": "bundled",
    "FACECAPTION_LLM_BACKEND": "none",
    "FACECAPTION_MIN_LABELS": "2",
    "FACECAPTION_THREADS": "1",
}


def _resize(folder: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB, to be enlarged."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system can be mounted by root only: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_home_fills(disk: Path, tmp_path: Path) -> None:
    home, settings = disk / "home", {**SMALL, "FACECAPTION_STORE": str(tmp_path / "store")}
    for kilobytes in (100, 1_500):
        _resize(disk, kilobytes)
        done = start("run", home=home, **settings)
        assert done.returncode == 1
        assert_one_line(done, "FACECAPTION_HOME")
        assert [line for line in done.stderr.splitlines() if "full" in line or "space" in line or "I/O" in line] == [
            done.stderr.strip().splitlines()[-1]
        ], done.stderr
    _resize(disk, 60_000)
    done = start("materialize", "source_manifest", home=home, **settings)
    assert done.returncode == 0, done.stderr


def test_the_store_fills(disk: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "FACECAPTION_STORE": str(disk / "store")}
    for kilobytes in (100, 1_500):
        _resize(disk, kilobytes)
        done = start("run", home=tmp_path / "home", **settings)
        assert done.returncode == 1
        assert_one_line(done, "No space left on device", str(disk))
    _resize(disk, 60_000)
    done = start("materialize", "attribute_model", home=tmp_path / "home", **settings)
    assert done.returncode == 0, done.stderr
