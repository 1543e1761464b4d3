"""``facecaption trace``: from a face back to everything that made it, and how far a face came that is not released."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from facecaption_assets.commands.instance import prepare_home
from facecaption_assets.commands.trace import trace_face
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.provenance import UnknownFaceError
from facecaption_ml.dataset.sources import sample_id
from facecaption_ml.schemas import SCHEMAS, empty
from facecaption_ml.storage.store import Store
from small_dataset import NAMES, face, url

Traced = Callable[[str], list[dict]]


@pytest.fixture
def traced(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Traced:
    """The records of a face, or of each face of a sample."""

    def trace(text: str) -> list[dict]:
        trace_face(settings, text, as_json=True)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return trace


def test_a_released_face_leads_back_to_its_url_with_every_version(traced: Traced) -> None:
    (found,) = traced(face(1, 2))
    assert (found["outcome"], found["shard"]) == ("released", NAMES[1])
    stages = {stage["asset"]: stage for stage in found["stages"]}
    assert list(stages) == [
        "facecaption_dataset", "llm_captions", "template_captions", "face_attributes", "face_crops", "raw_images",
        "source_manifest",
    ]  # fmt: skip
    assert stages["source_manifest"]["facts"]["url"] == url(1, 2)
    assert stages["raw_images"]["facts"]["fetched_at"].startswith("2026-05-04 03:02:01")
    assert stages["raw_images"]["facts"]["bytes"] == 1002
    assert stages["face_crops"]["recorded"]["detector weights"] == "weights1"
    assert stages["face_attributes"]["recorded"]["predictor"] == "model1"
    assert stages["face_attributes"]["facts"]["probabilities"]["Smiling"] == pytest.approx(0.9)
    assert stages["face_attributes"]["facts"]["attribute_model"]["version"] == "model1"
    assert stages["template_captions"]["recorded"] == {"grammar version": "grammar1", "seed": 0}
    assert stages["llm_captions"]["facts"]["prompt_version"] == "prompt1"
    assert stages["llm_captions"]["facts"]["reason"] == "unfaithful"
    assert all(stage["materialized"] and stage["note"] is None for stage in stages.values())
    assert found["traced_with"]["facecaption"]


def test_a_dropped_face_is_traced_as_far_as_it_came_with_the_reason(traced: Traced) -> None:
    (found,) = traced(face(0, 0, 1))
    assert "face_attributes has no row of it: dropped as too_few_labels" in found["outcome"]
    reached = {stage["asset"]: stage["row"] for stage in found["stages"]}
    assert reached["face_crops"]
    assert not reached["face_attributes"]
    assert not reached["facecaption_dataset"]


def test_a_picture_that_did_not_arrive_says_why(traced: Traced) -> None:
    (found,) = traced(face(1, 1))
    assert found["outcome"] == "not released: the picture was not kept: timeout, no answer within 10 s"


def test_a_sample_id_traces_every_face_of_its_picture(traced: Traced) -> None:
    found = traced(sample_id(url(0, 0)))
    assert [record["face_id"] for record in found] == [face(0, 0), face(0, 0, 1)]


def test_a_row_that_is_older_than_what_it_was_made_from_is_said_to_be(settings: Settings, traced: Traced) -> None:
    Store(settings.store_root).write_table("face_crops", empty("face_crops"), NAMES[0])
    (found,) = traced(face(0, 2))
    assert found["outcome"].startswith("released, but face_crops has no row of it any more")


def test_the_tree_shows_the_way_to_a_person(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    trace_face(settings, face(0, 2), as_json=False)
    shown = capsys.readouterr().out
    for words in (url(0, 2), "grammar1", "weights1", "chat1", "prompt1", "└─ source_manifest"):
        assert words in shown


def test_runs_are_links_where_the_address_of_the_ui_is_known(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    @dg.asset
    def source_manifest() -> None: ...

    prepare_home(settings)
    with dg.DagsterInstance.get() as instance:
        run = dg.materialize([source_manifest], instance=instance).run_id
    capsys.readouterr()

    trace_face(settings, face(0, 2), as_json=False)
    plain = capsys.readouterr().out.splitlines()
    assert any(f"· run {run} ·" in line for line in plain)
    assert f"http://127.0.0.1:3000/runs/{run}" in plain[-1]
    assert "FACECAPTION_UI_URL" in plain[-1]

    trace_face(settings.replaced(ui_url="https://dagster.example.org/"), face(0, 2), as_json=False)
    linked = capsys.readouterr().out
    assert f"· run https://dagster.example.org/runs/{run} ·" in linked
    assert "FACECAPTION_UI_URL" not in linked


def test_the_search_reads_no_pixels(settings: Settings, traced: Traced) -> None:
    """With the pictures of the other shard gone, a face is still found."""
    store = Store(settings.store_root)
    for table in ("raw_images", "face_crops"):
        Path(store.uri(store.table_key(table, NAMES[0]))).write_bytes(b"damaged")
    assert traced(face(1, 0))[0]["outcome"] == "released"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("face 7", "no face id"),
        ("0" * 16 + "_0", "no source row has the id 0000000000000000"),
        ("0" * 16, "no source row"),
    ],
)
def test_an_id_that_leads_nowhere(settings: Settings, text: str, words: str) -> None:
    with pytest.raises(UnknownFaceError, match=words):
        trace_face(settings, text, as_json=False)


def test_every_column_that_is_shown_is_in_its_table() -> None:
    from facecaption_assets.commands.trace import _SHOWN

    for table, names in _SHOWN.items():
        assert set(names) - {"bytes"} <= set(SCHEMAS[table]), table
