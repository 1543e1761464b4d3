from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import polars as pl
import pytest

from facecaption_ml.schemas import SCHEMAS, SchemaError, empty
from facecaption_ml.storage.store import Store, StoreError
from servers import s3_options


def captions(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "face_id": [f"{i:016x}_0" for i in range(rows)],
            "template_caption": ["A man."] * rows,
            "labels": [["Male"]] * rows,
            "gender": ["male"] * rows,
        },
        schema=dict(SCHEMAS["template_captions"]),
    )


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"))
    server: dict[str, str] = request.getfixturevalue("s3_server")
    return Store(f"s3://data/{tmp_path.name}", s3_options(server))


def test_a_table_comes_back_as_it_was(store: Store) -> None:
    frame = captions(1000)
    store.write_table("template_captions", frame, "shard-00000")
    assert store.read_table("template_captions", "shard-00000").equals(frame)
    assert store.row_count("template_captions", "shard-00000") == 1000
    assert pl.concat(store.iter_table("template_captions", "shard-00000", batch_rows=300)).equals(frame)
    columns = ["gender", "face_id"]
    assert store.read_table("template_captions", "shard-00000", columns=columns).columns == columns


def test_incomplete_rows_are_kept_apart_until_the_shard_is_done(store: Store) -> None:
    store.write_table("template_captions", captions(3), "shard-00000", incomplete=True)
    assert not store.has_table("template_captions", "shard-00000")
    assert store.shards("template_captions") == []
    assert len(store.read_table("template_captions", "shard-00000", incomplete=True)) == 3
    store.write_table("template_captions", captions(4), "shard-00000")
    assert store.shards("template_captions") == ["shard-00000"]
    assert not store.has_table("template_captions", "shard-00000", incomplete=True)


def test_shards_that_the_source_no_longer_has_are_not_registered(store: Store) -> None:
    for shard in ("shard-00000", "shard-00001"):
        store.write_table("template_captions", captions(3), shard)
    assert store.registered_shards("template_captions") == ["shard-00000", "shard-00001"]  # there is no manifest to ask
    store.write_table("source_manifest", empty("source_manifest"), "shard-00000")
    store.write_table("source_manifest", empty("source_manifest"), "shard-00002")
    assert store.registered_shards("template_captions") == ["shard-00000"]
    assert store.shards("template_captions") == ["shard-00000", "shard-00001"]


def test_a_missing_shard_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match=r"template_captions.*shard-00007.*materialize"):
        store.read_table("template_captions", "shard-00007")


def test_a_folder_goes_there_and_back(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "weights").write_bytes(b"\x00\x01")
    store.upload_folder(tmp_path / "model", "attribute_model")
    folder = store.local_folder("attribute_model", tmp_path / "cache")
    assert (folder / "deep" / "weights").read_bytes() == b"\x00\x01"
    store.delete("attribute_model/deep/weights")
    with pytest.raises(StoreError, match="attribute_model"):
        store.local_folder("attribute_model", tmp_path / "cache")


def test_a_table_with_a_wrong_column_is_refused(store: Store) -> None:
    with pytest.raises(SchemaError, match="gender"):
        store.write_table("template_captions", captions(1).drop("gender"), "shard-00000")
    with pytest.raises(SchemaError, match="labels"):
        store.write_table("template_captions", captions(1).with_columns(labels=pl.lit("x")), "shard-00000")
    assert not store.has_table("template_captions", "shard-00000")


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*file/store"):
        Store(str(tmp_path / "file" / "store")).check_writable()


@pytest.mark.slow
def test_an_s3_store_out_of_reach_is_named_without_its_secret() -> None:
    options = {
        "aws_endpoint_url": "http://127.0.0.1:9",
        "aws_access_key_id": "id",
        "aws_secret_access_key": "very-secret",
        "aws_region": "us-east-1",
    }
    store = Store("s3://data/x", options)
    with pytest.raises(StoreError, match=r"cannot reach s3://data/x: .*127\.0\.0\.1:9") as caught:
        store.exists("a")
    assert "very-secret" not in str(caught.value) + repr(store)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    path = Path(store.write_table("template_captions", captions(10), "shard-00000"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StoreError, match=r"cannot read .*shard-00000"):
        store.read_table("template_captions", "shard-00000")


_WRITER = """
import sys, polars as pl
sys.path.insert(0, {tests!r})
from test_store import captions
from facecaption_ml.storage.store import Store
store = Store({root!r})
print("ready", flush=True)
while True:
    store.write_table("template_captions", captions(200_000), "shard-00000")
"""


@pytest.mark.processes
def test_a_killed_writer_leaves_the_last_whole_table(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.write_table("template_captions", captions(5), "shard-00000")
    code = _WRITER.format(tests=str(Path(__file__).parent), root=store.root)
    for delay in (0.05, 0.12, 0.2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(store.read_table("template_captions", "shard-00000")) in (5, 200_000)
        assert store.shards("template_captions") == ["shard-00000"]


def test_a_reader_never_mixes_two_versions_of_a_table(store: Store) -> None:
    store.write_table("template_captions", captions(1000), "shard-00000", row_group_rows=100)
    outcome: list[object] = []
    try:
        with store.open_table("template_captions", "shard-00000") as parquet:
            first = parquet.read_row_group(0, columns=["face_id"])["face_id"].to_pylist()
            store.write_table("template_captions", captions(1000).reverse(), "shard-00000", row_group_rows=100)
            outcome = first + [v for g in range(1, 10) for v in parquet.read_row_group(g)["face_id"].to_pylist()]
    except StoreError as error:
        assert "shard-00000" in str(error)  # noqa: PT017
        assert "changed while it was read" in str(error)  # noqa: PT017
        assert store.root.startswith("s3://")
    else:
        assert outcome == captions(1000)["face_id"].to_list()
    assert store.read_table("template_captions", "shard-00000").equals(captions(1000).reverse())


def test_a_whole_read_takes_the_newer_version_where_one_came_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    class Overtaken(pq.ParquetFile):
        def read_row_group(self, *args: object, **more: object) -> object:
            if len(written) < 2:
                written.append(captions(10 + len(written)))
                store.write_table("template_captions", written[-1], "shard-00000")
            return super().read_row_group(*args, **more)

    store.write_table("template_captions", captions(3), "shard-00000")
    written: list[pl.DataFrame] = []
    monkeypatch.setattr(pq, "ParquetFile", Overtaken)
    read = store.read_table("template_captions", "shard-00000")
    assert len(read) == (11 if store.root.startswith("s3://") else 3)


def test_names_of_every_kind_come_back_from_a_listing(store: Store) -> None:
    names = ["a b.txt", "deep/é.txt", "p%20q.txt", "x+y&z=1.txt", "q?.txt", "h#1.txt", "br[1].txt"]
    for name in names:
        store.write_bytes(f"files/{name}", name.encode())
    assert store.keys("files/") == sorted(f"files/{name}" for name in names)
    assert store.keys("files/p%") == ["files/p%20q.txt"]
    assert [store.read_bytes(f"files/{name}").decode() for name in names] == names
    assert store.sizes("files/deep/") == {"files/deep/é.txt": len("deep/é.txt".encode())}


def test_what_a_killed_writer_left_is_no_key(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("files/a.txt", b"")
    (tmp_path / "files" / ".a.txt.0123.tmp").write_bytes(b"half")
    assert store.keys() == ["files/a.txt"]


def test_the_key_of_an_encryption_goes_with_every_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a server that only takes notes: SeaweedFS has no key service."""
    seen: list[tuple[str, str | None, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            prefix = "x-amz-server-side-encryption"
            seen.append((self.path, self.headers[prefix], self.headers[f"{prefix}-aws-kms-key-id"]))
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    options = {
        "aws_endpoint_url": f"http://127.0.0.1:{server.server_port}",
        "aws_region": "eu-central-1",
        "aws_server_side_encryption": "aws:kms",
        "aws_sse_kms_key_id": "arn:aws:kms:eu-central-1:1:key/2",
    }
    Store("s3://data/x", options).write_bytes("a", b"1")
    with Store("s3://data/x", options).writing_file("b") as path:
        path.write_bytes(b"2")
    server.shutdown()
    server.server_close()
    assert seen == [(f"/data/x/{key}", "aws:kms", "arn:aws:kms:eu-central-1:1:key/2") for key in "ab"]


def test_keys_come_from_aws_own_profile_and_their_absence_is_named(
    s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = Store(f"s3://data/{tmp_path.name}", {"aws_endpoint_url": s3_server["endpoint"]})
    with pytest.raises(StoreError, match=r"cannot reach s3://data: no AWS credentials"):
        store.keys()
    (tmp_path / "AWS_CONFIG_FILE").write_text(
        f"[profile me]\nregion = eu-west-1\naws_access_key_id = {s3_server['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {s3_server['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "me")
    store.write_bytes("a", b"1")
    assert store.keys() == ["a"]


def test_objects_are_encrypted_at_rest_where_that_is_set(s3_server: dict[str, str], tmp_path: Path) -> None:
    options = s3_options(s3_server)
    client = boto3.client(
        "s3",
        endpoint_url=s3_server["endpoint"],
        aws_access_key_id=s3_server["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_server["AWS_SECRET_ACCESS_KEY"],
        region_name=s3_server["AWS_REGION"],
    )
    for encryption in ({}, {"aws_server_side_encryption": "AES256"}):
        store = Store(f"s3://data/{tmp_path.name}-{len(encryption)}", options | encryption)
        store.write_table("template_captions", captions(3), "shard-00000")
        key = store.uri("template_captions/shard-00000.parquet").removeprefix("s3://data/")
        found = client.head_object(Bucket="data", Key=key).get("ServerSideEncryption")
        assert found == encryption.get("aws_server_side_encryption")
        assert store.read_table("template_captions", "shard-00000").equals(captions(3))
        assert store.row_count("template_captions", "shard-00000") == 3
