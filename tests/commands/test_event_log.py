"""What Dagster remembers of a picture that is to be removed, before and after."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import dagster as dg
import pytest

from facecaption_assets.commands.event_log import Words, redact_events, redact_file
from facecaption_assets.commands.instance import Pipeline
from facecaption_assets.commands.remove import remove
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.removal_requests import remove_addresses, survey
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.schemas import SHARD_TABLES
from small_dataset import CAPTION, NAMES, face, url

PIXELS = base64.b64encode(b"\xff\xd8 the pixels of a face").decode()
ALT_TEXT = "Ada Lovelace at the sea"


def shown(asset: str, shard: str | None, address: str, **more: str) -> dg.AssetMaterialization:
    records = [dg.TableRecord({"URL": address, "caption": "short"})]
    return dg.AssetMaterialization(
        asset,
        partition=shard,
        metadata={
            "crops": dg.MetadataValue.md(f"![faces](data:image/jpeg;base64,{PIXELS})"),
            "examples": dg.MetadataValue.table(
                records, dg.TableSchema([dg.TableColumn("URL"), dg.TableColumn("caption")])
            ),
            "faces: kept": 3,
            **more,
        },
    )


def held(home: Path, words: str) -> list[str]:
    """Files under a folder that have the words, as bytes."""
    files = (Path(folder, name) for folder, _, names in os.walk(home / "dagster") for name in names)
    return sorted(str(path) for path in files if words.encode() in path.read_bytes())


@pytest.fixture
def remembered(settings: Settings) -> Settings:
    """A home whose event log shows pictures, URLs and texts of two shards."""
    instance = Pipeline(settings).instance
    report = instance.report_runless_asset_event
    report(shown("face_crops", NAMES[0], url(0, 0)))
    report(shown("face_crops", NAMES[1], url(1, 2), note=f"beside {url(0, 0)}"))
    report(shown("image_quality", None, url(0, 0)))
    report(shown("attribute_model", None, "http://elsewhere.test/1.jpg"))
    report(
        dg.AssetObservation("raw_images", partition=NAMES[0], metadata={"failure": f"cannot read {url(0, 0)}, sorry"})
    )
    report(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("raw_images"),
            check_name="denials_honoured",
            passed=False,
            partition=None,
            metadata={
                "examples": dg.MetadataValue.json(
                    [url(0, 0).replace("host-0.test", "HOST-0.test:80") + "#top", url(1, 2)]
                )
            },
        )
    )
    log = settings.dagster_home / "storage" / "run1" / "compute_logs" / "step.err"
    log.parent.mkdir(parents=True)
    log.write_text(f"fetched {url(0, 0)}\nfetched {url(1, 2)}\n")
    return settings


@pytest.mark.slow
def test_nothing_of_a_removed_picture_is_left_in_the_instance_and_everything_else_is(
    remembered: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    home, instance = remembered.home, Pipeline(remembered).instance
    before = {key: instance.get_materialized_partitions(key) for key in map(dg.AssetKey, ("face_crops", "raw_images"))}
    assert len(held(home, url(0, 0))) >= 3
    remove(remembered, [url(0, 0)], "", dry_run=True)
    assert "What this command takes out:" in capsys.readouterr().out
    assert len(held(home, url(0, 0))) >= 3
    remove(remembered, [url(0, 0)], "", dry_run=False)
    assert "1 log file(s)" in capsys.readouterr().out
    assert held(home, url(0, 0)) == held(home, "HOST-0.test:80") == []
    assert held(home, url(1, 2))  # of the other shard, and of the list of examples
    after = {key: instance.get_materialized_partitions(key) for key in before}
    assert after == before
    newest = instance.get_latest_materialization_event(dg.AssetKey("face_crops"))
    assert newest
    assert newest.asset_materialization
    assert PIXELS in str(newest.asset_materialization.metadata["crops"].value)  # the other shard's
    (mine,) = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey("face_crops"), asset_partitions=[NAMES[0]]), limit=1
    ).records
    metadata = mine.asset_materialization.metadata
    assert metadata["crops"].value == "[removed on request]"
    assert list(metadata["examples"].records) == []
    assert metadata["faces: kept"].value == 3
    model = instance.get_latest_materialization_event(dg.AssetKey("attribute_model"))
    assert model
    assert PIXELS in str(model.asset_materialization)


@pytest.mark.slow
def test_what_a_list_written_by_hand_has_emptied_is_taken_out_of_the_instance_too(remembered: Settings) -> None:
    store, removed = remembered.open_store(), RemovalList(urls=frozenset({url(0, 0)}))
    remove_addresses(store, survey(store, removed).held)
    for table in SHARD_TABLES[1:]:  # as a rebuild leaves them out
        store.delete(store.table_key(table, NAMES[0]))
    remove(remembered, [url(0, 0)], "", dry_run=False)
    assert survey(store, removed).emptied == [NAMES[0]]
    instance = Pipeline(remembered).instance
    shows = {}
    for shard in NAMES[:2]:
        wanted = dg.AssetRecordsFilter(dg.AssetKey("face_crops"), asset_partitions=[shard])
        (record,) = instance.fetch_materializations(wanted, limit=1).records
        shows[shard] = PIXELS in str(record.asset_materialization.metadata["crops"].value)
    assert shows == {NAMES[0]: False, NAMES[1]: True}


def test_texts_of_a_removed_picture_go_wherever_they_stand(tmp_path: Path) -> None:
    words = Words(
        RemovalList(hosts=frozenset({"bad.test"})), texts=frozenset({CAPTION, ALT_TEXT, "ok", "写真の女性", "male"})
    )
    assert words.redact(f"{face(0, 0)}: {CAPTION}") == f"{face(0, 0)}: [removed on request]"
    assert words.redact("写真の女性, ok") == "[removed on request], ok"
    assert words.redact("ok") == "ok"
    assert words.redact('see <a href="https://www.bad.test/x?a=1&amp;b=2">it</a>, (http://good.test/x).') == (
        'see <a href="[removed on request]">it</a>, (http://good.test/x).'
    )
    long = "http://good.test/" + "a" * 200
    cut = Words(
        RemovalList(), urls=frozenset({long}), texts=frozenset({f"{ALT_TEXT}\n with a book and many more words"})
    )
    assert cut.redact(f"2 of 3: {long[:119]}…, {long[:60]}b") == f"2 of 3: [removed on request], {long[:60]}b"
    assert cut.redact(f"{ALT_TEXT} with a book and many…") == "[removed on request]"
    path = tmp_path / "errors.log"
    path.write_bytes(b"a\xff\r\nGET http://BAD.test:80/1.jpg: " + ALT_TEXT.encode() + b"\r\nlast")
    assert redact_file(path, words, dry_run=True)
    assert ALT_TEXT.encode() in path.read_bytes()
    assert redact_file(path, words, dry_run=False)
    assert path.read_bytes() == b"a\xff\r\nGET [removed on request] [removed on request]\r\nlast"
    assert not redact_file(path, words, dry_run=False)


def test_a_database_in_use_is_named(remembered: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    monkeypatch.setattr("facecaption_assets.commands.event_log._LOCK_SECONDS", 0.1)
    instance = Pipeline(remembered).instance
    index = remembered.dagster_home / "history" / "runs" / "index.db"
    words = Words(RemovalList(urls=frozenset({url(0, 0)})))
    with sqlite3.connect(index) as other:
        other.execute("BEGIN IMMEDIATE")
        emptied = redact_events(instance, [NAMES[0]], words, dry_run=False)
    assert [
        problem
        for problem in emptied.problems
        if "index.db could not be rewritten" in problem and "run this again" in problem
    ]
    assert redact_events(instance, [NAMES[0]], words, dry_run=False).problems == []
    assert held(remembered.home, url(0, 0)) == []
