"""A removal, carried out by the commands that it prints: nothing of it is left in the store or in Dagster's instance."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pytest

from facecaption_ml.captions.backends.chat import Answer
from facecaption_ml.captions.rewrite.answer_cache import AnswerCache
from facecaption_ml.flip.use.face_features import FaceFeatures
from facecaption_ml.storage.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.processes]
GONE = "shard-00009"  # a shard that the source had once


class Encoder:
    """Stands for a checkpoint: what it encodes does not matter here."""

    version = "checkpoint1"

    def encode_images(self, images: Any) -> Any:
        return np.tile(np.array([0.6, 0.8], np.float32), (len(images), 1))


def test_what_was_removed_by_host_url_hash_and_face_is_nowhere_afterwards(home: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    store = Store(str(home / "store"))
    before = facecaption.everything(home, "facecaption_dataset")
    raw = facecaption.everything(home, "raw_images").filter(pl.col("status") == "ok")
    chosen = choose(before, raw)
    by_host, by_url, by_hash, by_face = chosen
    leave_behind(store, before, by_host)
    FaceFeatures(store, Encoder.version).update(Encoder())
    samples = {row["sample"] for row in chosen[:3]}
    host = urlsplit(by_host["url"]).hostname or ""
    samples |= set(raw.filter(pl.col("url").str.contains(f"//{host}", literal=True))["sample_id"])
    words = [
        *("--host", host.upper() + "."), *("--url", f"  {by_url['url'].replace('http://', 'HTTP://')}#top"),
        *("--sha256", by_hash["sha256"]), *("--face-id", by_face["face_id"]),
    ]  # fmt: skip
    kept = before.filter(
        ~pl.col("face_id").str.slice(0, 16).is_in(list(samples)) & (pl.col("face_id") != by_face["face_id"])
    )
    assert 0 < len(kept) < len(before)
    secrets = secrets_of(store, chosen, raw.filter(pl.col("sample_id").is_in(list(samples))), before, kept)
    assert {kind for kind, secret in secrets if list(found_in(home, kind, secret))} == {
        "url",
        "caption",
        "pixels",
        "crop",
    }

    dry = facecaption.run(home, "remove", "--dry-run", *words)
    assert dry.returncode == 0, dry.stderr
    assert "What this command takes out:" in dry.stdout
    assert not (home / "removals.txt").exists()
    done = facecaption.run(home, "remove", *words)
    assert done.returncode == 0, done.stderr
    commands = printed(done.stdout)
    assert printed(dry.stdout) == commands
    assert "facecaption clean" in {command.partition("#")[0].strip() for command in commands}
    for command in commands:
        rebuilt = facecaption.run(home, *shlex.split(command, comments=True)[1:])
        assert rebuilt.returncode == 0, f"{command}\n{rebuilt.stderr}"

    left = [(kind, where) for kind, secret in secrets for where in found_in(home, kind, secret)]
    assert left == []
    after = facecaption.everything(home, "facecaption_dataset")
    assert sorted(after["face_id"]) == sorted(kept["face_id"])
    packed = pl.concat([pl.read_parquet(store.uri(key)) for key in store.keys("release/data/")])
    assert set(packed["face_id"]) <= set(kept["face_id"])
    assert store.shards("raw_images") == facecaption.shards
    assert facecaption.everything(home, "source_manifest")["sample_id"].n_unique() >= raw["sample_id"].n_unique()
    again = facecaption.run(home, "remove", *words)
    assert "no shard under" in again.stdout, again.stdout


def choose(released: pl.DataFrame, raw: pl.DataFrame) -> list[dict[str, Any]]:
    """Four released faces of four hosts, with captions that no other face has."""
    rows = (
        released.with_columns(sample=pl.col("face_id").str.slice(0, 16))
        .filter(pl.col("caption").is_unique())
        .join(raw.select("sample_id", "sha256", "image"), left_on="sample", right_on="sample_id")
        .to_dicts()
    )
    chosen: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["face_id"]):
        chosen.setdefault(urlsplit(row["url"]).hostname or "", row)
    assert len(chosen) >= 4
    return list(chosen.values())[:4]


def leave_behind(store: Store, released: pl.DataFrame, row: dict[str, Any]) -> None:
    """What earlier runs may have left: a shard that is no longer in the source, an unfinished try, another model's answer."""
    shard = next(
        name
        for name in store.shards("raw_images")
        if row["sample"] in set(store.read_table("raw_images", name)["sample_id"])
    )
    for table in ("raw_images", "face_crops", "facecaption_dataset"):
        store.write_table(table, store.read_table(table, shard), GONE)
        store.write_table(table, store.read_table(table, shard), shard, incomplete=True)
    cache = AnswerCache(store, f"chat1/{shard}")
    cache.put("0" * 32, Answer(row["caption"], None))
    cache.save()


def secrets_of(
    store: Store, chosen: list[dict[str, Any]], raw: pl.DataFrame, before: pl.DataFrame, kept: pl.DataFrame
) -> list[tuple[str, Any]]:
    crops = pl.concat([store.read_table("face_crops", shard) for shard in store.registered_shards("face_crops")])
    crop = crops.filter(pl.col("face_id") == chosen[3]["face_id"])["image"].struct.field("bytes")[0]
    captions = set(before["caption"]) - set(kept["caption"])
    assert chosen[3]["caption"] in captions
    return [
        *(("url", url) for url in raw["url"]),
        *(("caption", caption) for caption in sorted(captions)),
        *(("pixels", data) for data in raw["image"].struct.field("bytes")),
        ("crop", crop),
    ]


def found_in(home: Path, kind: str, secret: str | bytes) -> Iterator[str]:
    """Files of the store and of the instance that hold it: as bytes, in base64, in JSON, or as a value of a Parquet table."""
    if isinstance(secret, str):
        needles = [secret.encode()]
    else:
        inside = secret[len(secret) // 2 :][:60]  # JPEGs begin alike
        needles = [inside, *(base64.b64encode(inside[at:])[4:-4] for at in range(3))]
    for folder in ("store", "dagster"):
        for path in sorted((home / folder).rglob("*")):
            if not path.is_file():
                continue
            data = path.read_bytes()
            if any(needle in data for needle in needles) or (
                path.suffix == ".parquet" and any(secret in values_of(column) for column in pl.read_parquet(path))
            ):
                yield f"{path.relative_to(home)}"


def values_of(column: pl.Series) -> set[Any]:
    if isinstance(column.dtype, pl.Struct):
        return set(column.struct.field("bytes").drop_nulls()) if "bytes" in column.struct.fields else set()
    return set(column.drop_nulls()) if column.dtype in (pl.String, pl.Binary) else set()


def printed(text: str) -> list[str]:
    section = re.search(r"^To carry it out, run:\n((?:  .*\n)+)", text, re.MULTILINE)
    assert section, text
    return [line.strip() for line in section[1].splitlines()]
