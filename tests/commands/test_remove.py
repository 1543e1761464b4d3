"""``facecaption remove``: what is recorded, what it says it touches, and that the rebuild it names takes it out."""

from __future__ import annotations

import datetime
import hashlib
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from at_once import at_once
from facecaption_assets.commands.instance import Pipeline
from facecaption_assets.commands.remove import remove, requested
from facecaption_assets.factories.records import note_source_rows, source_rows
from facecaption_assets.resources.data import build_resources
from facecaption_assets.settings import Settings, load_settings
from facecaption_ml.dataset.removal_requests import holdings, record_requests
from facecaption_ml.dataset.removals import REMOVED, RemovalList, RemovalListError
from facecaption_ml.dataset.sources import sample_id
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.content import table_version
from facecaption_ml.storage.objects import read_object
from facecaption_ml.storage.store import Store
from small_dataset import NAMES, face, picture, settings_of, url

Captured = pytest.CaptureFixture[str]
TODAY = datetime.date(2026, 5, 4)


@pytest.mark.slow
def test_a_removed_url_is_recorded_and_shown_and_a_rebuild_takes_out_row_and_pixels(
    settings: Settings, capsys: Captured, tmp_path: Path
) -> None:
    remove(settings, [url(1, 2)], "asked by letter", dry_run=False)
    shown = capsys.readouterr().out
    assert f"{NAMES[1]}: source_manifest 1, raw_images 1, face_crops 1" in shown
    assert NAMES[0] not in shown
    store = Store(settings.store_root)
    for table in ("raw_images", "face_crops"):
        assert f"{store.uri(f'{table}/{NAMES[1]}.parquet')} (1)" in shown
    assert f"facecaption run --skip-source --first {NAMES[1]} --last {NAMES[1]}" in shown
    path = tmp_path / "removals.txt"
    assert re.fullmatch(rf"# \d{{4}}-\d\d-\d\d asked by letter\n{re.escape(url(1, 2))}\n", path.read_text())

    again = settings_of(tmp_path, success_floor=0.0)
    assert again.release.removal_list == str(path)
    Pipeline(again).run("raw_images", "facecaption_dataset", first=NAMES[1])
    raw = store.read_table("raw_images", NAMES[1])
    assert raw["status"].to_list()[2] == "denied"
    assert raw["image"].to_list()[2] is None
    assert store.read_table("facecaption_dataset", NAMES[1])["face_id"].to_list() == [face(1, 0)]


def test_a_dry_run_records_nothing(settings: Settings, capsys: Captured, tmp_path: Path) -> None:
    remove(settings, [url(0, 0)], "", dry_run=True)
    assert "dry run" in capsys.readouterr().out
    assert not (tmp_path / "removals.txt").exists()


def test_a_copy_under_another_url_is_pointed_out(settings: Settings, capsys: Captured) -> None:
    remove(settings, [url(0, 0)], "", dry_run=True)
    hash_of_both = hashlib.sha256(picture(0, 0)).hexdigest()
    assert (
        f"the same file lies at {url(1, 0)}, which is not removed: add --sha256 {hash_of_both}"
        in capsys.readouterr().out
    )


def test_a_face_leaves_every_table_of_faces_and_the_command_says_that_its_picture_stays(
    settings: Settings, capsys: Captured
) -> None:
    remove(settings, [face(0, 2)], "", dry_run=True)
    shown = capsys.readouterr().out
    assert f"facecaption run --skip-source --first {NAMES[0]} --last {NAMES[0]}" in shown
    assert "its picture stays in raw_images" in shown
    store = Store(settings.store_root)
    for table in ("face_crops", "face_attributes", "template_captions", "llm_captions", "facecaption_dataset"):
        rows = store.read_table(table, NAMES[0])
        store.write_table(table, rows.filter(pl.col("face_id") != face(0, 2)), NAMES[0])
    remove(settings, [face(0, 2)], "", dry_run=True)
    shown = capsys.readouterr().out
    assert "no shard" in shown
    assert f"{store.uri(f'raw_images/{NAMES[0]}.parquet')} (1)" in shown  # and the picture is still named
    assert "raw_images/shard-00000.parquet (1)" in shown


@pytest.mark.parametrize("line", [url(0, 0), "host:host-0.test", hashlib.sha256(picture(0, 2)).hexdigest()])
def test_what_is_shown_is_what_a_rebuild_leaves_out(settings: Settings, line: str) -> None:
    store, removed = Store(settings.store_root), RemovalList.parse([line], "the test")
    counted = {holding.shard: holding.rows["facecaption_dataset"] for holding in holdings(store, removed)}
    for shard in NAMES:
        raw = dict(store.read_table("raw_images", shard, columns=["sample_id", "sha256"]).iter_rows())
        released = store.read_table("facecaption_dataset", shard, columns=["face_id", "url"])
        out = [removed.reason(page, name, raw[name[:16]]) for name, page in released.iter_rows()]
        assert counted.get(shard, 0) == sum(reason is not None for reason in out)


def test_of_a_hash_nothing_is_said_that_only_an_address_brings_about(settings: Settings, capsys: Captured) -> None:
    source = settings.replaced(source="/lists/list.csv")
    remove(source, [hashlib.sha256(picture(0, 2)).hexdigest()], "", dry_run=True)
    by_hash = capsys.readouterr().out
    remove(source, [url(0, 2)], "", dry_run=True)
    by_url = capsys.readouterr().out
    for claim in ("never fetches it again", "its rows are emptied whenever it is read"):
        assert claim in by_url
        assert claim not in by_hash
    assert "brings back the addresses of a removed hash" in by_hash
    assert "not reached: the list itself (/lists/list.csv)" in by_hash


def test_something_that_no_shard_holds_is_recorded_all_the_same(
    settings: Settings, capsys: Captured, tmp_path: Path
) -> None:
    remove(settings, ["https://example.org/1.jpg"], "", dry_run=False)
    assert "no shard" in capsys.readouterr().out
    assert RemovalList.read(str(tmp_path / "removals.txt")).urls == {"https://example.org/1.jpg"}


def test_a_request_that_is_there_already_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# by hand\nhttp://a.test/1.jpg")
    lines = ["http://a.test/1.jpg", "host:b.test", "host:b.test"]
    assert record_requests(str(path), lines, "x", TODAY) == (["host:b.test"], ["http://a.test/1.jpg", "host:b.test"])
    assert path.read_text() == "# by hand\nhttp://a.test/1.jpg\n# 2026-05-04 x\nhost:b.test\n"
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")] == ["list.txt"]


_ENDS_EARLY = """
from facecaption_assets.commands import remove as command
from small_dataset import settings_of
def ending(*_):
    os._exit(9)
command._note_source_rows = ending
command.remove(settings_of(Path(given["home"])), [given["url"]], "by letter", False)
"""


@pytest.mark.processes
def test_a_removal_that_ended_early_leaves_nothing_undone_when_it_is_run_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(settings.store_root)
    pipeline = Pipeline(settings)
    note_source_rows(pipeline.instance, dict.fromkeys(NAMES, "as they were"))
    (ended,) = at_once(tmp_path / "signs", "", _ENDS_EARLY, [{"home": str(tmp_path), "url": url(1, 2)}])
    assert ended.returncode == 9, ended.stderr
    assert store.read_table("source_manifest", NAMES[1])["url"].to_list()[2] == REMOVED
    remove(settings_of(tmp_path), [url(1, 2)], "by letter", dry_run=False)
    now = table_version(store, "source_manifest", NAMES[1], columns=SCHEMAS["source_manifest"])
    # So the shard counts as out of date, and the nightly backfill makes it anew.
    assert source_rows(pipeline.instance, NAMES) == {NAMES[0]: "as they were", NAMES[1]: now}


@given(reason=st.text(max_size=40))
def test_no_reason_makes_the_list_unreadable(reason: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("list") / "removals.txt"
    record_requests(str(path), [url(0, 0)], reason, TODAY)
    record_requests(str(path), [face(0, 0)], reason, TODAY)
    assert RemovalList.read(str(path)) == RemovalList(urls=frozenset({url(0, 0)}), face_ids=frozenset({face(0, 0)}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"urls": ["me.jpg"]}, r"--url 'me\.jpg'.*no URL"),
        ({"hosts": ["a.test/x"]}, r"--host 'a\.test/x'.*no host"),
        ({"face_ids": [sample_id("x")]}, "--face-id .*no face id"),
        ({"sample_ids": ["xyz"]}, "--sample-id 'xyz'.*no sample id"),
        ({"hashes": ["ab"]}, "--sha256 'ab'.*no SHA-256"),
        ({"urls": ["http://a.test/1 2.jpg"]}, "--url .*no URL"),
    ],
)
def test_garbage_is_refused_by_the_name_of_its_option(options: dict[str, list[str]], words: str) -> None:
    given = {"urls": [], "hosts": [], "face_ids": [], "sample_ids": [], "hashes": [], **options}
    with pytest.raises(FaceCaptionError, match=words):
        requested(**given)


def test_a_list_with_garbage_in_it_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("please\n")
    with pytest.raises(RemovalListError, match=r"list\.txt, line 1"):
        record_requests(str(path), [url(0, 0)], "", TODAY)
    assert path.read_text() == "please\n"


def test_a_list_of_the_users_own_wins_over_the_one_in_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "removals.txt").touch()
    monkeypatch.setenv("FACECAPTION_HOME", str(tmp_path))
    assert load_settings().release.removal_list == str(tmp_path / "removals.txt")
    monkeypatch.setenv("FACECAPTION_REMOVAL_LIST", "/elsewhere.txt")
    assert load_settings().release.removal_list == "/elsewhere.txt"


@pytest.fixture
def on_s3(s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings of a store on S3 that nothing is in yet."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, s3_server[name])
    root = f"s3://data/{tmp_path.name}"
    return {"store": root, "s3_endpoint": s3_server["endpoint"], "s3_region": s3_server["AWS_REGION"]}


def test_a_request_made_on_one_machine_reaches_the_runs_of_another(
    on_s3: dict[str, str], tmp_path: Path, capsys: Captured
) -> None:
    address = f"{on_s3['store']}/removals.txt"
    here, there = (settings_of(tmp_path / name, **on_s3, removal_list=address, deny_list=address) for name in "ab")
    downloader = build_resources(there)["downloader"]
    assert downloader.denied() == RemovalList()
    for line in (url(0, 0), face(0, 0)):
        remove(here, [line], "asked", dry_run=False)
        assert f"recorded in {address}: {line}" in capsys.readouterr().out
    assert downloader.denied() == RemovalList(urls=frozenset({url(0, 0)}), face_ids=frozenset({face(0, 0)}))
    remove(there, [url(0, 0)], "again", dry_run=False)
    assert f"was in {address} already" in capsys.readouterr().out
    text = read_object(address, there.storage.options).decode()
    assert re.fullmatch(r"(# \d{4}-\d\d-\d\d asked\n\S+\n){2}", text)


def test_a_bucket_that_is_not_there_is_no_empty_list(on_s3: dict[str, str], tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **on_s3, removal_list="s3://no-such-bucket/removals.txt")
    with pytest.raises(RemovalListError, match=r"list s3://no-such-bucket/removals\.txt: cannot be read"):
        build_resources(settings)["downloader"].denied()
    with pytest.raises(RemovalListError, match="no-such-bucket"):
        remove(settings, [url(0, 0)], "", dry_run=False)


@pytest.mark.parametrize("there_already", [True, False])
def test_with_a_store_on_s3_a_list_in_home_is_refused(
    on_s3: dict[str, str], tmp_path: Path, there_already: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "removals.txt"
    if there_already:
        path.touch()
    with pytest.raises(FaceCaptionError, match=r"FACECAPTION_REMOVAL_LIST is not set") as refused:
        remove(settings_of(tmp_path, **on_s3), [url(0, 0)], "", dry_run=False)
    assert "\n" not in str(refused.value)
    assert not path.exists() or not path.read_text()
    monkeypatch.setenv("FACECAPTION_REMOVAL_LIST", str(path))  # chosen, and perhaps on a disk that all machines see
    remove(settings_of(tmp_path, **on_s3), [url(0, 0)], "", dry_run=False)
    assert url(0, 0) in path.read_text()


def test_pictures_of_an_unfinished_shard_are_found_by_their_hash(settings: Settings, capsys: Captured) -> None:
    store, removed = Store(settings.store_root), hashlib.sha256(picture(1, 0)).hexdigest()
    store.write_table("raw_images", store.read_table("raw_images", NAMES[1]), NAMES[1], incomplete=True)
    store.delete(store.table_key("raw_images", NAMES[1]))
    remove(settings, [url(0, 0)], "", dry_run=True)
    assert f"the same file lies at {url(1, 0)}" in capsys.readouterr().out
    remove(settings, [removed], "", dry_run=True)
    shown = capsys.readouterr().out
    assert f"{store.uri(f'raw_images/incomplete/{NAMES[1]}.parquet')} (1)" in shown
    assert f"{NAMES[1]}: source_manifest 1" in shown


@pytest.mark.slow
def test_a_removal_that_was_interrupted_is_run_again_to_the_end(
    settings: Settings, capsys: Captured, tmp_path: Path
) -> None:
    store = Store(settings.store_root)
    remove(settings, [url(1, 2)], "", dry_run=False)  # and then nobody ran the commands
    manifest = store.read_table("source_manifest", NAMES[1])
    assert manifest["url"].to_list() == [url(1, 0), url(1, 1), "removed"]
    assert manifest["alt_text"].to_list() == ["a man", "a man", None]
    assert manifest["sample_id"].to_list() == [sample_id(url(1, row)) for row in range(3)]
    capsys.readouterr()
    for line in (url(1, 2), "http://elsewhere.test/1.jpg"):  # the same words, or whatever comes next
        remove(settings, [line], "", dry_run=False)
        shown = capsys.readouterr().out
        assert f"{NAMES[1]}: source_manifest 0, raw_images 1, face_crops 1" in shown
        assert f"facecaption run --skip-source --first {NAMES[1]} --last {NAMES[1]}" in shown
    Pipeline(settings_of(tmp_path, success_floor=0.0)).run("raw_images", first=NAMES[1])
    raw = store.read_table("raw_images", NAMES[1])
    assert raw["url"].to_list() == [url(1, 0), url(1, 1), "removed"]
    remove(settings, [url(1, 2)], "", dry_run=True)
    assert f"{NAMES[1]}: source_manifest 0, raw_images 0, face_crops 1" in capsys.readouterr().out


def test_a_host_is_removed_although_the_list_has_broken_and_odd_urls(settings: Settings, capsys: Captured) -> None:
    store = Store(settings.store_root)
    manifest = store.read_table("source_manifest", NAMES[0])
    odd = ["http://[]@/", "http://HOST-0.test.:80/a%2db.jpg#x", "http://[1:2:3:4:5:6:7:8:9]/"]
    store.write_table("source_manifest", manifest.with_columns(url=pl.Series(odd)), NAMES[0])
    remove(settings, ["host:Host-0.TEST"], "", dry_run=False)
    shown = capsys.readouterr().out
    assert f"{NAMES[0]}: source_manifest 3, raw_images 3" in shown  # by their rows in raw_images
    assert NAMES[1] not in shown
    assert f"facecaption run --skip-source --first {NAMES[0]} --last {NAMES[0]}" in shown


def test_what_left_the_source_is_found_and_cleaned(settings: Settings, capsys: Captured) -> None:
    store = Store(settings.store_root)
    store.delete(store.table_key("source_manifest", NAMES[1]))
    store.delete(store.table_key("raw_images", NAMES[1]))
    remove(
        settings,
        [url(1, 0).upper().replace("HTTP://HOST-1.TEST", "http://HOST-1.test:80").replace("JPG", "jpg")],
        "",
        dry_run=True,
    )
    shown = capsys.readouterr().out
    assert f"{NAMES[1]}: face_crops 2" in shown
    assert "facecaption clean" in shown
    assert "run --skip-source" not in shown


def test_features_and_the_sheet_go_at_once_and_what_is_out_of_reach_is_named(
    settings: Settings, capsys: Captured
) -> None:
    store, sheet = Store(settings.store_root), settings.home / "faces_and_captions.jpg"
    sheet.write_bytes(b"picture")
    (settings.home / "training").mkdir()
    keys = [f"face_features/c0ffee/{shard}.npy" for shard in NAMES]
    for key in keys:
        store.write_bytes(key, b"features")
    remove(settings, [url(0, 0)], "", dry_run=True)
    said = capsys.readouterr().out.partition("What this command takes out:")[2]
    assert str(sheet) in said
    assert [store.exists(key) for key in keys] == [True, True]
    assert sheet.exists()
    remove(settings, [url(0, 0)], "", dry_run=False)
    assert [store.exists(key) for key in keys] == [False, True]
    assert not sheet.exists()
    shown = capsys.readouterr().out
    for place in (str(settings.home / "training"), "published", "backups", str(settings.home)):
        assert f"not reached: {place}" in shown or place in shown.partition("not reached")[2]


@pytest.mark.parametrize("host", ["*.host-0.test", "https://host-0.test/", "host-0.test:8080", "a..b", "host-0.test/x"])
def test_a_host_that_would_match_nothing_is_refused_with_what_to_give_instead(host: str) -> None:
    with pytest.raises(FaceCaptionError, match=r"--host .*that is no host name.*write host:(host-0\.test|a\.b)"):
        requested([], [host], [], [], [])
