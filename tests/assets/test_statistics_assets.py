"""The statistics over a small store: what they count, what they leave behind, and what missing things do to them."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from drawn_pairs import face, table
from facecaption_assets.assets.release import release_assets
from facecaption_assets.assets.statistics import statistics_assets
from facecaption_assets.checks import statistics as checks
from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.commands.run import run_statistics
from facecaption_assets.partitions import STATISTICS_ASSETS
from facecaption_assets.resources.data import build_resources
from facecaption_assets.settings import THIS_DATA_SET, Settings, SettingsError, load_settings
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.sample.portraits import draw_portrait
from facecaption_ml.statistics.comparison import ComparisonTally, comparison_table
from facecaption_ml.statistics.matching import MATCHING_SCHEMA
from facecaption_ml.statistics.quality import QUALITY_SCHEMA
from facecaption_ml.statistics.report import card_sections
from facecaption_ml.statistics.text import TABLE_SCHEMA
from facecaption_ml.storage.store import Store
from tiny_checkpoints import save_blip, save_clip

ALT_TEXTS = ("a man in the news", None, "portrait of two friends")


def fill(folder: Path, *cuts: range, manifest: int = 0) -> Store:
    """A store with a shard for each range of faces, and ``manifest`` more that have not come that far.

    Every fifth face is not released.
    """
    store = Store(str(folder))
    for number, cut in enumerate(cuts):
        boxes = {k: [0.0, 0.0, 140.0 + k, 150.0 + k] for k in cut}
        texts = {k: {"url": f"http://a.test/{k}", "alt_text": ALT_TEXTS[k % 3], "split": "train"} for k in cut}
        faces = {k: {**face(k, 72), "box": boxes[k], **texts[k]} for k in cut}
        released = [faces[k] for k in cut if k % 5]
        store.write_table("face_crops", table("face_crops", list(faces.values())), f"shard-{number:05d}")
        store.write_table("facecaption_dataset", table("facecaption_dataset", released), f"shard-{number:05d}")
    for number in range(len(cuts) + manifest):
        store.write_table("source_manifest", table("source_manifest", []), f"shard-{number:05d}")
    return store


@dataclass
class Outcome:
    """What a run left: metadata and checks by asset, and the store."""

    store: Store
    success: bool
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, dict[str, bool]] = field(default_factory=dict)

    def table(self, asset: str, name: str | None = None) -> pl.DataFrame:
        return pl.read_parquet(self.store.uri(f"statistics/{asset}/{name or asset}.parquet"))

    def json(self, asset: str) -> dict[str, Any]:
        return dict(json.loads(self.store.read_bytes(f"statistics/{asset}/{asset}.json")))

    def has(self, asset: str, file: str) -> bool:
        return self.store.exists(f"statistics/{asset}/{file}")


def settings_of(store: Store, **given: Any) -> Settings:
    home = Path(store.root).parent / "home"
    return load_settings(profile="sample", home=home, store=store.root, threads=1, **given)


def run(store: Store, *only: str, **given: Any) -> Outcome:
    settings = settings_of(store, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assets = [*statistics_assets(settings), release_assets(settings)[-1]]
        chosen = [asset for asset in assets if asset.key.to_user_string() in (only or STATISTICS_ASSETS)]
        result = dg.materialize(chosen, resources=build_resources(settings), raise_on_error=False)
    outcome = Outcome(store, result.success)
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        name = materialization.asset_key.to_user_string()
        outcome.metadata[name] = {key: value.value for key, value in materialization.metadata.items()}
    for check in result.get_asset_check_evaluations():
        outcome.checks.setdefault(check.asset_key.to_user_string(), {})[check.check_name] = check.passed
    return outcome


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All statistics over two of three shards, without any model."""
    return run(fill(tmp_path_factory.mktemp("measured") / "store", range(15), range(15, 22), manifest=1))


ROWS = 22 - 5  # faces less those that are not released


@pytest.mark.slow
def test_every_statistic_counts_the_finished_shards(measured: Outcome) -> None:
    assert measured.success
    for name in STATISTICS_ASSETS:
        made_from = measured.json(name)["made_from"]
        assert (made_from["rows"], made_from["shards"], made_from["missing_shards"]) == (ROWS, 2, 1)
        assert measured.metadata[name]["not there yet"] == "shard-00002"
        for check, passed in measured.checks[name].items():
            assert passed == (check != "complete"), (name, check)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_rows(measured: Outcome) -> None:
    pairs = pl.concat([measured.store.read_table("facecaption_dataset", f"shard-{k:05d}") for k in (0, 1)])
    words = [len(text.replace(".", " ").split()) for text in pairs["caption"]]
    row = measured.table("dataset_comparison").filter(pl.col("origin") == "measured").row(0, named=True)
    assert row["dataset"] == THIS_DATA_SET
    assert row["samples"] == len(pairs)
    assert row["mean_width"] == pytest.approx(np.mean([box[2] - box[0] for box in pairs["box"]]), abs=1e-3)
    assert row["mean_words"] == pytest.approx(np.mean(words), abs=0.5)  # hyphens are one word or two
    texts = {row["source"]: row for row in measured.table("text_statistics").to_dicts()}
    assert texts["alt_text"]["empty"] == pairs["alt_text"].null_count() > 0
    assert texts["caption"]["texts"] == len(pairs)
    labels = pairs["labels"].explode().value_counts()
    categories = measured.table("text_statistics", "categories")
    assert categories["labels"].sum() == labels["count"].sum()
    quality = measured.table("image_quality").row(0, named=True)
    assert (quality["data_set"], quality["metric"], quality["images"]) == (THIS_DATA_SET, "brisque", ROWS)


@pytest.mark.slow
def test_what_no_model_measured_is_said_in_one_line_naming_the_setting(measured: Outcome) -> None:
    for name, setting in (("image_quality", "FACECAPTION_CLIP"), ("image_text_matching", "FACECAPTION_ITM_MODEL")):
        (note,) = measured.json(name)["notes"]
        assert note.startswith(setting)
        assert "\n" not in note
        assert measured.metadata[name]["notes"] == note
    empty = measured.table("image_text_matching")
    assert empty.is_empty()
    assert dict(empty.schema) == MATCHING_SCHEMA
    assert not measured.has("image_text_matching", "image_text_matching.png")


@pytest.mark.slow
def test_the_figures_are_in_the_ui_and_in_the_store(measured: Outcome) -> None:
    for name in ("dataset_comparison", "text_statistics", "image_quality"):
        assert measured.metadata[name]["figure"].startswith("![")
        assert len(measured.metadata[name]["figure"]) < 150_000
        png = measured.store.read_bytes(f"statistics/{name}/{name}.png")
        assert png.startswith(b"\x89PNG")
        assert b"<svg" in measured.store.read_bytes(f"statistics/{name}/{name}.svg")
        assert measured.metadata[name]["figure as SVG"].endswith(f"{name}.svg")


@pytest.mark.slow
def test_neither_the_cut_into_shards_nor_a_second_run_changes_a_number(tmp_path: Path) -> None:
    names = ("text_statistics", "image_quality")
    cuts = (range(14, 22), range(7), range(7, 14))
    one = run(fill(tmp_path / "one" / "store", range(22)), *names, quality_sample=6)
    many = run(fill(tmp_path / "many" / "store", *cuts), *names, quality_sample=6)
    for name in names:
        assert one.json(name)["tables"] == many.json(name)["tables"]
    assert one.table("image_quality")["scored"].to_list() == [6]
    version = "statistics/text_statistics/text_statistics.json"
    before = one.store.read_bytes(version)
    assert run(one.store, "text_statistics").store.read_bytes(version) == before


@pytest.mark.slow
@pytest.mark.parametrize("shards", [0, 1])
def test_no_shard_or_an_empty_one_gives_empty_tables(tmp_path: Path, shards: int) -> None:
    done = run(fill(tmp_path / "store", *[range(0)] * shards, manifest=2))
    assert done.success
    for name in STATISTICS_ASSETS:
        assert done.json(name)["made_from"]["missing_shards"] == 2
        assert all(passed for check, passed in done.checks[name].items() if check != "complete")
    assert dict(done.table("text_statistics").schema) == dict(TABLE_SCHEMA)
    assert done.table("text_statistics")["texts"].to_list() == [0, 0, 0]
    assert dict(done.table("image_quality").schema) == QUALITY_SCHEMA
    assert done.table("dataset_comparison")["samples"][-1] == 0
    assert not done.has("text_statistics", "text_statistics.png")


def test_models_and_folders_that_are_not_there_are_a_line_each(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", range(4))
    (tmp_path / "bare").mkdir()
    done = run(
        store,
        "image_quality",
        "image_text_matching",
        clip="/no/such/clip",
        itm_model="/no/such/blip",
        quality_folders=f"gone={tmp_path}/gone,bare={tmp_path}/bare",
    )
    assert done.success
    clip, gone, bare = done.json("image_quality")["notes"]
    assert "FACECAPTION_CLIP" in clip
    assert "/no/such/clip" in clip
    assert "FACECAPTION_QUALITY_FOLDERS" in gone
    assert str(tmp_path / "bare") in bare
    (blip,) = done.json("image_text_matching")["notes"]
    assert "FACECAPTION_ITM_MODEL" in blip
    assert done.table("image_quality").filter(pl.col("data_set") == THIS_DATA_SET)["scored"].to_list() == [3]
    for name in ("image_quality", "image_text_matching"):
        assert done.checks[name]["complete"] is False


def test_without_any_metric_picture_quality_is_an_empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facecaption_ml.statistics.brisque._PACKAGE", "no-such-package")
    done = run(fill(tmp_path / "store", range(4)), "image_quality")
    assert done.success
    brisque, clip = done.json("image_quality")["notes"]
    assert "install no-such-package" in brisque
    assert clip.startswith("FACECAPTION_CLIP")
    assert done.table("image_quality").is_empty()
    assert not done.has("image_quality", "image_quality.png")


@pytest.mark.slow
def test_models_score_a_sample_of_the_released_faces_and_of_other_folders(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", range(8), range(8, 16))
    store.delete(store.table_key("face_crops", "shard-00001"))  # its six faces have no picture any more
    other = tmp_path / "other"
    other.mkdir()
    for k in range(3):
        (other / f"{k}.jpg").write_bytes(encode_jpeg(draw_portrait(frozenset({"Male"}), k, 64).image))
    models = {"clip": str(save_clip(tmp_path / "clip")), "itm_model": str(save_blip(tmp_path / "blip"))}
    names = ("image_quality", "image_text_matching")
    done = run(store, *names, **models, quality_folders=f"Other faces={other}")
    assert done.success
    assert all(all(done.checks[name].values()) for name in names), done.checks
    quality = done.table("image_quality")
    assert set(quality["data_set"]) == {THIS_DATA_SET, "Other faces"}
    clip = quality.filter(pl.col("metric") == "clip_iqa_quality").rows(named=True)
    assert [(row["scored"], row["unreadable"]) for row in clip] == [(6, 6), (3, 0)]
    matching = {row["source"]: row for row in done.table("image_text_matching").to_dicts()}
    assert {row["faces"] for row in matching.values()} == {12}
    assert (matching["caption"]["scored"], matching["caption"]["unreadable"]) == (6, 6)
    assert matching["alt_text"]["no_text"] > 0
    assert done.json("image_text_matching")["made_from"]["model"] == models["itm_model"]
    assert done.has("image_text_matching", "image_text_matching.svg")
    card, _ = card_sections(store, names, 12)
    assert f"CLIP-IQA by `{models['clip']}`." in card
    assert f"Scored by `{models['itm_model']}`." in card

    again = run(store, "image_text_matching")  # without the model: nothing of the earlier figure stays
    assert not again.has("image_text_matching", "image_text_matching.png")
    assert again.table("image_text_matching").is_empty()


@pytest.mark.slow
def test_the_checks_fail_where_the_numbers_do_not_add_up(measured: Outcome) -> None:
    text, lengths = measured.table("text_statistics"), measured.table("text_statistics", "words_per_text")
    assert checks.texts_conserved(text, lengths, ROWS).passed
    assert not checks.texts_conserved(text, lengths, ROWS + 1).passed
    assert not checks.texts_conserved(text, lengths.head(3), ROWS).passed
    categories = measured.table("text_statistics", "categories")
    assert checks.shares_sum_to_one(categories, lengths).passed
    assert not checks.shares_sum_to_one(categories.with_columns(pl.col("share") * 1.01), lengths).passed
    curve = measured.table("text_statistics", "unique_4_grams")
    assert not checks.unique_at_most_all(text, curve.reverse()).passed
    assert not checks.unique_at_most_all(text.with_columns(grams=pl.lit(1)), curve).passed

    comparison = measured.table("dataset_comparison")
    published = comparison_table(ComparisonTally()).head(-1).to_dicts()
    assert checks.published_unchanged(comparison, published).passed
    assert not checks.published_unchanged(comparison.slice(1), published).passed
    assert not checks.published_unchanged(comparison.with_columns(pl.col("samples") + 1), published).passed
    assert not checks.rows_counted(comparison, ROWS - 1).passed

    quality = measured.table("image_quality")
    assert not checks.quality_conserved(quality, {THIS_DATA_SET: ROWS + 1}).passed
    assert not checks.quality_conserved(quality.with_columns(pl.col("scored") - 1), {THIS_DATA_SET: ROWS}).passed
    assert not checks.quality_in_range(quality.with_columns(metric=pl.lit("clip_iqa_quality"))).passed
    assert not checks.quality_in_range(quality.with_columns(p05=pl.col("p95") + 1)).passed
    match = pl.DataFrame(
        [{**dict.fromkeys(MATCHING_SCHEMA, 0.5), "source": "caption", "faces": 4, "scored": 3, "no_text": 1,
          "unreadable": 0, "mismatched": 0}],
        schema=MATCHING_SCHEMA,
    )  # fmt: skip
    assert checks.matching_conserved(match, 4).passed
    assert not checks.matching_conserved(match, 5).passed
    assert checks.matching_in_range(match).passed
    assert not checks.matching_in_range(match.with_columns(mean=pl.lit(1.5))).passed


@pytest.mark.slow
def test_the_card_shows_what_there_is_and_says_what_is_not(measured: Outcome, tmp_path: Path) -> None:
    text, pictures = card_sections(measured.store, STATISTICS_ASSETS, ROWS)
    assert set(pictures) == {f"{name}.png" for name in ("dataset_comparison", "image_quality", "text_statistics")}
    for name in pictures:
        assert f"](figures/{name})" in text
    for words in ("FaceCaption-15M", "FACECAPTION_ITM_MODEL is not set", "| caption |", "brisque"):
        assert words in text
    assert "Measured on" not in text
    assert (
        f"Measured on {ROWS} rows; `facecaption_dataset` has 9 now."
        in card_sections(measured.store, STATISTICS_ASSETS, 9)[0]
    )
    store = Store(str(tmp_path))
    store.write_bytes("statistics/image_quality/image_quality.json", b"{broken")
    text, pictures = card_sections(store, STATISTICS_ASSETS, ROWS)
    assert pictures == {}
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[0] == "- `dataset_comparison` is not part of this card: the asset has not been materialized."
    assert lines[1].startswith("- `image_quality` is not part of this card: ")


@pytest.mark.slow
@pytest.mark.parametrize("with_statistics", [True, False])
def test_the_release_is_packed_with_and_without_statistics(tmp_path: Path, with_statistics: bool) -> None:
    store = fill(tmp_path / "store", range(6))
    pairs = store.read_table("facecaption_dataset", "shard-00000")
    raw = [{"sample_id": face_id[:16], "sha256": f"{k:064x}"[::-1]} for k, face_id in enumerate(pairs["face_id"])]
    store.write_table("raw_images", table("raw_images", raw), "shard-00000")
    done = run(store, *(("text_statistics",) if with_statistics else ()), "facecaption_release")
    assert done.success
    card = store.read_bytes("release/README.md").decode()
    assert f"{len(pairs)} pairs" in card
    assert "`dataset_comparison` is not part of this card" in card
    assert ("figures/text_statistics.png" in card) == with_statistics
    assert store.exists("release/figures/text_statistics.png") == with_statistics


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")
def test_a_statistic_that_fails_leaves_the_others_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))  # Pipeline sets it anew; this puts it back afterwards
    store = fill(tmp_path / "store", range(4))
    (tmp_path / "store" / "statistics").mkdir()
    (tmp_path / "store" / "statistics" / "text_statistics").write_text("in the way")
    failed = run_statistics(Pipeline(settings_of(store)))
    assert isinstance(failed, RunFailedError)
    assert "text_statistics" in str(failed)
    assert "the rest continues without it: cannot write" in capsys.readouterr().err
    for name in set(STATISTICS_ASSETS) - {"text_statistics"}:
        assert store.exists(f"statistics/{name}/{name}.json")


@pytest.mark.parametrize(
    ("value", "folders"),
    [
        ("", {}),
        ("CelebA=/data/celeba", {"CelebA": "/data/celeba"}),
        ("CelebA=/data/celeba, /data/ffhq", {"CelebA": "/data/celeba", "ffhq": "/data/ffhq"}),
        ('{"a, b": "/x,y=z"}', {"a, b": "/x,y=z"}),
        ('["/data/ffhq"]', {"ffhq": "/data/ffhq"}),
    ],
)
def test_quality_folders_are_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, folders: dict[str, str]
) -> None:
    monkeypatch.setenv("FACECAPTION_QUALITY_FOLDERS", value)
    assert load_settings().statistics.quality_folders == {name: Path(path) for name, path in folders.items()}


@pytest.mark.parametrize(
    "value", ["a=/x,a=/y", "=/x", "a=", f"{THIS_DATA_SET}=/x", f'{{"{THIS_DATA_SET}": "/x"}}', '{"a": 3}', "{broken"]
)
def test_unusable_quality_folders_are_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FACECAPTION_QUALITY_FOLDERS", value)
    with pytest.raises(SettingsError, match="FACECAPTION_QUALITY_FOLDERS") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
