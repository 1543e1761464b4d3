"""What a shard's bodies take of memory, whatever they add up to."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.images import bodies as bodies_module
from facecaption_ml.images import fetch_raw_images, fetch_to_file, iter_fetched
from facecaption_ml.images.bodies import Bodies, ScratchError
from facecaption_ml.schemas import SchemaError
from facecaption_ml.storage.store import Store
from facecaption_ml.storage.table_file import TableFile
from hostile_site import Site, manifest, picture, reply, running_site
from local_fetch import local


def arrived(bodies: Bodies, chunks: list[bytes]) -> bytes:
    async def arrive() -> bytes:
        body = bodies.arriving()
        for chunk in chunks:
            await body.add(chunk)
        assert body.size == sum(map(len, chunks))
        assert body.head == b"".join(chunks)[: len(body.head)]
        data = body.read()
        body.release()
        return data

    return asyncio.run(arrive())


@examples(30)
@given(st.lists(st.binary(max_size=50_000), max_size=9))
def test_a_body_is_what_arrived(chunks: list[bytes]) -> None:
    with Bodies(connections=100_000) as bodies:
        assert arrived(bodies, chunks) == b"".join(chunks)


@examples(30)
@given(st.lists(st.tuples(st.binary(max_size=3000), st.booleans()), max_size=40), st.integers(0, 9000))
def test_kept_bodies_are_given_back_whatever_lies_where(kept: list[tuple[bytes, bool]], room: int) -> None:
    with Bodies(1, waiting_bytes=room) as bodies:
        held = []
        for data, goes in kept:
            body = bodies.keep(data)
            assert body.size() == len(data)
            if goes:
                body.release()
            else:
                held.append((body, data))
        for body, data in random.Random(0).sample(held, len(held)):
            assert body.read() == data
            body.release()


def test_bodies_leave_no_file_with_a_name(tmp_path: Path) -> None:
    with Bodies(1, tmp_path / "bodies", waiting_bytes=0) as bodies:
        body = bodies.keep(b"x" * 100)
        assert arrived(bodies, [b"y" * 3_000_000]) == b"y" * 3_000_000
        assert list((tmp_path / "bodies").iterdir()) == []
        assert body.read() == b"x" * 100


def full_disk() -> IO[bytes]:
    return Path("/dev/full").open("w+b", buffering=0)


@pytest.mark.skipif(os.geteuid() != 0 and not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_a_full_disk_ends_the_shard_in_one_line(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module.tempfile, "TemporaryFile", lambda **_: full_disk())
    monkeypatch.setattr(bodies_module, "_LEAST_HELD", 0)
    monkeypatch.setattr(bodies_module, "_MOST_HELD", 0)
    source = manifest([f"{site.base}/image/{i}" for i in range(20)])
    with pytest.raises(ScratchError, match=rf"cannot keep pictures in {tmp_path}: No space left on device"):
        fetch_raw_images(source, *local(scratch=tmp_path))
    assert not [thread for thread in threading.enumerate() if thread.name == "download"]


def test_a_full_disk_met_while_a_picture_waits(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module.tempfile, "TemporaryFile", lambda **_: full_disk())
    monkeypatch.setattr(bodies_module.Bodies.__init__, "__defaults__", (None, 0))
    with pytest.raises(ScratchError, match="No space left on device"):
        fetch_raw_images(manifest([f"{site.base}/image/{i}" for i in range(20)]), *local(scratch=tmp_path))


def test_rows_are_the_same_however_little_memory_there_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.replies["/copy"] = reply(body=picture(3))
    paths = [f"/image/{i}" for i in range(12)] + ["/copy", "/status/404", "/gzip", "/hop/2"]
    source = manifest([site.base + path for path in paths])
    whole = fetch_raw_images(source, *local()).drop("fetched_at")
    monkeypatch.setattr(bodies_module, "_LEAST_HELD", 100)
    monkeypatch.setattr(bodies_module, "_MOST_HELD", 100)
    monkeypatch.setattr(bodies_module.Bodies.__init__, "__defaults__", (None, 1500))
    monkeypatch.setattr("facecaption_ml.images.download._CHUNK_BYTES", 3000)
    chunks = list(iter_fetched(source, *local()))
    assert pl.concat(chunks).drop("fetched_at").equals(whole)
    assert len(chunks) > 3
    assert all(len(chunk) == 1 or chunk["image"].struct.field("bytes").bin.size().sum() <= 3000 for chunk in chunks)


def test_a_table_in_a_file_is_that_table(tmp_path: Path) -> None:
    rows = [
        {"face_id": f"{n}", "template_caption": "A person.", "labels": ["Smiling"], "gender": None} for n in range(9)
    ]
    table = TableFile("template_captions", tmp_path)
    assert list(tmp_path.iterdir()) == []
    frame = pl.DataFrame(rows, table.clear().schema)
    table.add(frame[:4])
    table.add(frame[4:])
    with pytest.raises(SchemaError):
        table.add(frame.drop("labels"))
    table.close()
    assert (len(table), table.columns, dict(table.schema)) == (9, frame.columns, dict(frame.schema))
    assert [len(batch) for batch in table.batches()] == [4, 5]
    store = Store(str(tmp_path / "store"))
    store.write_table("template_captions", table, "shard-00000")
    assert store.read_table("template_captions", "shard-00000").equals(frame)
    assert store.stored_schema("template_captions", "shard-00000") == (dict(frame.schema), 9)
    # No batch has rows of two row groups, so that memory never holds more than one.
    assert [len(batch) for batch in store.iter_table("template_captions", "shard-00000", batch_rows=3)] == [3, 1, 3, 2]


def test_a_shard_without_rows_is_a_table(site: Site, tmp_path: Path) -> None:
    table, facts = fetch_to_file(manifest([]), *local())
    assert (len(table), len(facts)) == (0, 0)
    store = Store(str(tmp_path))
    store.write_table("raw_images", table, "shard-00000")
    assert store.read_table("raw_images", "shard-00000").equals(table.clear())


_FETCH = """
import sys
from pathlib import Path
import polars as pl
from facecaption_ml.images import fetch_to_file
from facecaption_ml.storage.store import Store
from hostile_site import manifest
from local_fetch import local
base, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
urls = [base + "/slow"] + [f"{base}/large?{n}" for n in range(count)]
policy = local(total_timeout_s=100.0, read_timeout_s=100.0, connections_per_host=32)
table, facts = fetch_to_file(manifest(urls), *policy)
Store(folder).write_table("raw_images", table, "shard-00000")
status = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would count the parent's memory before the exec
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(facts["image_bytes"].sum(), peak * 1024)
"""


class LargePictures(Site):
    """Pictures of 8 MB, each with bytes of its own behind the end; the first row comes last."""

    async def answer(self, writer: asyncio.StreamWriter, path: str) -> None:
        if path == "/slow":
            await asyncio.sleep(8)
            writer.write(reply(body=picture(0)))
            return
        if not path.startswith("/large"):
            await super().answer(writer, path)
            return
        body = self.replies["picture"] + path.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 2**18):
            writer.write(body[start : start + 2**18])
            await writer.drain()


@pytest.mark.processes
def test_large_pictures_are_not_in_memory_together(tmp_path: Path) -> None:
    with running_site(LargePictures()) as site:
        site.replies["picture"] = picture(1) + bytes(8_000_000)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(
            [sys.executable, "-c", _FETCH, site.base, "100", str(tmp_path)],
            capture_output=True, text=True, env=environment, timeout=200,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pictures, peak = map(int, done.stdout.split())
    assert pictures > 800_000_000
    assert peak < 700_000_000, f"{peak / 1e6:.0f} MB"
