"""``source_manifest`` says what it did with every row and file of the source."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg
import pytest

from facecaption_assets.assets import source as source_assets
from facecaption_assets.definitions import build_definitions
from facecaption_assets.factories.records import source_rows
from facecaption_assets.resources.data import DownloaderResource
from facecaption_assets.settings import load_settings
from facecaption_ml.dataset.sources import delimited
from facecaption_ml.storage.store import Store

LIST = (
    'URL,TEXT,NSFW\nhttp://a.test/0.jpg,a 19" screen,UNLIKELY\nhttp://a.test/1.jpg,"open,UNLIKELY\n,nothing,UNLIKELY\n'
    'http://a.test/2.jpg,"two\nlines",UNLIKELY\nhttp://a.test/3.jpg,x,NSFW\n'
)


def materialized(
    home: Path, source: Path, *, instance: dg.DagsterInstance | None = None, **more: object
) -> dg.ExecuteInProcessResult:
    settings = load_settings(profile="photos", home=home, source=str(source), **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = build_definitions(settings).resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            asset_selection=[dg.AssetKey("source_manifest")],
            raise_on_error=False,
            instance=instance or dg.DagsterInstance.ephemeral(),
        )


def metadata(run: dg.ExecuteInProcessResult) -> dict[str, object]:
    return {
        name: value.value for name, value in run.asset_materializations_for_node("source_manifest")[0].metadata.items()
    }


def message(run: dg.ExecuteInProcessResult) -> str:
    data = next(event for event in run.all_events if event.is_step_failure).step_failure_data
    return str(data.user_failure_data and data.user_failure_data.description)


def test_dropped_and_repaired_rows_and_passed_over_files_are_shown(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "list.csv").write_text(LIST)
    for name in ("_SUCCESS", ".list.csv.crc", "notes.md"):
        (lists / name).write_text("x")
    run = materialized(tmp_path / "home", lists)
    shown = metadata(run)
    assert (shown["rows: kept"], shown["rows: no_url"], shown["rows: nsfw"]) == (3, 1, 1)
    assert (shown["repaired: stray_quote"], shown["lines within quoted fields"]) == (1, 1)
    tables = {
        name: [tuple(record.data.values()) for record in shown[name].records]  # type: ignore[attr-defined]
        for name in ("dropped rows", "repaired rows", "files passed over")
    }
    assert [(Path(file).name, place, reason) for file, place, reason in tables["dropped rows"]] == [
        ("list.csv", "line 4", "no_url"),
        ("list.csv", "line 7", "nsfw"),
    ]
    assert tables["repaired rows"][0][1:] == ("line 3", "stray_quote")
    assert {row[0]: row[2] for row in tables["files passed over"]} == {
        "hidden": ".list.csv.crc",
        "marker": "_SUCCESS",
        ".md": "notes.md",
    }
    (check,) = run.get_asset_check_evaluations()
    assert check.passed
    assert check.metadata["in"].value == 5


def test_rows_conserved_fails_when_the_reader_loses_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "list.csv"
    source.write_text("URL\n" + "http://a.test/\n" * 100)
    by_arrow = delimited.DelimitedTable._by_arrow
    monkeypatch.setattr(delimited.DelimitedTable, "_by_arrow", lambda *given: by_arrow(*given).head(60))
    (check,) = materialized(tmp_path / "home", source).get_asset_check_evaluations()
    assert not check.passed
    assert (check.metadata["in"].value, check.metadata["kept"].value) == (100, 60)


def test_a_list_without_a_usable_row_says_why(tmp_path: Path) -> None:
    source = tmp_path / "list.jsonl"
    source.write_text("[1]\n{broken\n")
    said = message(materialized(tmp_path / "home", source))
    assert "FACECAPTION_SOURCE: no usable row among 2; rows dropped: 1 malformed_json, 1 not_an_object; first: " in said
    assert f"{source}, line 1 (not_an_object)" in said
    source.write_text("\n")
    assert "FACECAPTION_SOURCE: no row in it (files read: 1)" in message(materialized(tmp_path / "home", source))


def test_tables_among_pictures_name_the_setting_that_chooses(tmp_path: Path) -> None:
    source = tmp_path / "album"
    source.mkdir()
    (source / "a.jpg").write_bytes(b"x")
    (source / "licences.csv").write_text("URL\nhttps://example.org/terms\n")
    assert message(materialized(tmp_path / "home", source)).startswith("FACECAPTION_SOURCE_KIND: source ")
    assert metadata(materialized(tmp_path / "home", source, source_kind="pictures"))["rows: kept"] == 1


def test_only_a_table_that_names_files_lets_files_be_read(tmp_path: Path) -> None:
    named, urls = tmp_path / "metadata.csv", tmp_path / "list.csv"
    named.write_text("file_name,text\na.jpg,one\n")
    urls.write_text(f"URL\nfile://{tmp_path}/a.jpg\n")
    allowed = {}
    for source in (named, urls, tmp_path):
        settings = load_settings(profile="photos", home=tmp_path / "home", source=str(source))
        with DownloaderResource(settings).session() as (_, context):
            allowed[source] = context.allow_files_under
    assert allowed == {named: tmp_path.resolve(), urls: None, tmp_path: tmp_path.resolve()}


@pytest.mark.slow
def test_only_shards_whose_rows_have_changed_have_other_rows_than_before(tmp_path: Path) -> None:
    source, shards = tmp_path / "list.txt", ["shard-00000", "shard-00001", "shard-00002"]
    noted = []
    with dg.DagsterInstance.ephemeral() as instance:
        for names in ("abcd", "abcd", "abcdef", "abcfe", "b"):
            source.write_text("".join(f"http://{name}.test/1.jpg\n" for name in names))
            materialized(tmp_path / "home", source, instance=instance, shard_size=2)
            noted.append(source_rows(instance, shards))
    assert [len(rows) for rows in noted[:3]] == [2, 2, 3]
    assert noted[0] == noted[1] == {shard: noted[2][shard] for shard in shards[:2]}
    assert [noted[3][shard] != noted[2][shard] for shard in shards] == [False, True, True]
    assert noted[4][shards[0]] != noted[3][shards[0]]


def test_shards_that_are_gone_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(source_assets.logger, "info", lambda text, *values: said.append(text % values))
    instance, store = dg.DagsterInstance.ephemeral(), Store(str(tmp_path))
    names = [f"shard-{number:05d}" for number in range(4)]
    source_assets._register(instance, store, names)
    source_assets._register(instance, store, names[:1])
    assert instance.get_dynamic_partitions("shards") == names[:1]
    assert len(said) == 1
    assert "gone from the source: 3 shards, shard-00001 to shard-00003; " in said[0]
