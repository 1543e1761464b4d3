"""Each released caption says who wrote it, and the data card counts how they all came about, from the shards themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_assets.checks.tables import provenance
from facecaption_ml.captions import CaptionGrammar, caption_table
from facecaption_ml.captions.rewrite.rewriting import unwritten
from facecaption_ml.dataset.data_card import data_card, summary_json
from facecaption_ml.dataset.release import release_table, released_captions, write_release
from facecaption_ml.dataset.release_summary import CaptionTally, ReleaseSummary
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.dataset.sources import sample_id
from facecaption_ml.schemas import DATASET, SCHEMAS
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES

S = ["shard-00000", "shard-00001", "shard-00002"]
LABELS = ["Attractive", "Chubby", "Male", "Smiling", "Young"]


def urls(shard: str, count: int) -> list[str]:
    return [f"http://{shard}.test/{i}.jpg" for i in range(count)]


def rows(table: str, count: int, **columns: object) -> pl.DataFrame:
    """``count`` rows of a table, null but for ``columns``."""
    values = {name: columns.get(name, [None] * count) for name in SCHEMAS[table]}
    return pl.DataFrame(values, dict(SCHEMAS[table]))


def make_shard(
    store: Store, shard: str, sources: Sequence[str], model: str = "chat1", excluded: Sequence[str] = ()
) -> pl.DataFrame:
    """Everything of a shard from its manifest on, with captions by these sources: llm, a refusal's reason, or published."""
    count, addresses = len(sources), urls(shard, len(sources))
    ids = [sample_id(url) for url in addresses]
    faces = [f"{name}_0" for name in ids]
    store.write_table("source_manifest", rows("source_manifest", count, sample_id=ids, url=addresses), shard)
    store.write_table("raw_images", rows("raw_images", count, sample_id=ids), shard)
    if "published" in sources:
        final = rows(
            "llm_captions", count, face_id=faces, caption=["A man."] * count, caption_source=["published"] * count
        )
    else:
        likely = {name: [0.95 if name in LABELS else 0.1] * count for name in ATTRIBUTES}
        attributes = rows(
            "face_attributes", count, face_id=faces, labels=[LABELS] * count, gender=["male"] * count, **likely
        )
        store.write_table("face_attributes", attributes, shard)
        templates = caption_table(attributes, CaptionGrammar.load(), 0, excluded=excluded)
        store.write_table("template_captions", templates, shard)
        final = unwritten(templates, "FACECAPTION_LLM_BACKEND is none").with_columns(wrote=pl.Series(sources))
        by_model = pl.col("wrote") == "llm"
        asked = pl.col("wrote") != "none"
        final = final.with_columns(
            caption=pl.when(by_model).then(pl.lit("A smiling young man.")).otherwise("caption"),
            caption_source=pl.when(by_model).then(pl.lit("llm")).otherwise("caption_source"),
            reason=pl.when(by_model).then(None).when(asked).then("wrote").otherwise("reason"),
            attempts=pl.when(by_model).then(2).when(asked).then(4).otherwise(0).cast(pl.Int16),
            model=pl.when(asked).then(pl.lit(model)).otherwise("model"),
            prompt_version=pl.when(asked).then(pl.lit("2-abcd")).otherwise("prompt_version"),
        ).drop("wrote")
    store.write_table("llm_captions", final, shard)
    crops = pl.DataFrame(
        {
            "face_id": faces,
            "sample_id": ids,
            "url": addresses,
            "alt_text": ["alt"] * count,
            "box": [[0.0, 0.0, 9.0, 9.0]] * count,
        },
        schema_overrides={"box": pl.Array(pl.Float32, 4)},
    )
    released, _ = release_table(crops, released_captions(store, shard), {}, RemovalList(), 0.1, 0.1)
    store.write_table(DATASET, released, shard)
    return released


def release(store: Store, shards: Sequence[str], **more: object) -> tuple[str, dict, ReleaseSummary]:
    def card(summary: ReleaseSummary) -> dict[str, bytes]:
        text = data_card(summary, {"URLs": 9}, {}, False, label_rule="p > 0.85", **more)
        return {"README.md": text, "summary.json": summary_json(summary, {})}

    summary = write_release(store, shards, card)
    numbers = json.loads(store.read_bytes("release/summary.json"))
    return store.read_bytes("release/README.md").decode(), numbers, summary


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_row_says_who_wrote_its_caption_and_how_sure_its_labels_are(store: Store) -> None:
    released = make_shard(store, S[0], ["llm", "unfaithful", "none"])
    facts = released.select("caption_source", "caption_model", "prompt_version", "attempts").rows()
    assert facts == [("llm", "chat1", "2-abcd", 2), ("template", None, None, 4), ("template", None, None, 0)]
    assert released["labels"].to_list() == [LABELS] * 3
    assert [list(map(float, row)) for row in released["label_probabilities"]] == [pytest.approx([0.95] * 5)] * 3
    assert provenance(released).passed


def test_published_captions_have_no_model_no_attempts_and_no_labels(store: Store) -> None:
    released = make_shard(store, S[0], ["published"] * 2)
    row = released.row(0, named=True)
    assert (row["caption_source"], row["caption"]) == ("published", "A man.")
    for name in ("caption_model", "prompt_version", "attempts", "template_caption", "labels", "label_probabilities"):
        assert row[name] is None
    assert provenance(released).passed
    text, numbers, _ = release(store, S[:1])
    assert "| as published (`published`) | 2 | 100.0% |" in text
    assert "Published captions, for example:\n\n- A man." in text
    assert "kept out" not in text
    assert "nothing holds it to the labels of the face" in text
    assert "says the labels of its face" not in text
    assert numbers["captions"]["sources"] == {"llm": 0, "template": 0, "published": 2}


def test_a_card_of_published_and_template_captions_says_what_holds_of_each(store: Store) -> None:
    make_shard(store, S[0], ["published"] * 2)
    make_shard(store, S[1], ["none"] * 3)
    text, numbers, _ = release(store, S[:2])
    assert numbers["captions"]["sources"] == {"llm": 0, "template": 3, "published": 2}
    assert "p > 0.85. The 2 pairs with a published caption have no labels: no predictor was asked." in text
    assert "A caption by the grammar says the labels of its face and nothing else." in text
    assert "nothing holds it to the labels of the face" in text
    assert "| as published (`published`) | 2 | 40.0% |" in text
    assert "| the grammar (`template`) | 3 | 60.0% |" in text


@pytest.mark.slow
def test_the_card_counts_models_refusals_and_sources_over_all_shards(store: Store) -> None:
    make_shard(store, S[0], ["llm", "llm", "unfaithful", "not fluent"])
    make_shard(store, S[1], ["llm", "client error: 402 no credit left", "client error: 402 pay first"], model="chat2")
    make_shard(store, S[2], ["none", "none"])
    text, numbers, _ = release(store, S, spent={"prompt tokens": "1,234"})
    assert "| a language model (`llm`) | 3 | 33.3% |\n| the grammar (`template`) | 6 | 66.7% |" in text
    assert "| `chat1` | 2-abcd | 4 | 2 | 50.0% | 3.00 |\n| `chat2` | 2-abcd | 3 | 1 | 33.3% | 3.33 |" in text
    assert "| client error | 2 |" in text
    assert "no credit" not in text
    assert "| unfaithful | 1 |" in text
    assert "| FACECAPTION_LLM_BACKEND is none | 2 |" in text
    assert "What it took: prompt tokens 1,234." in text
    assert "$" not in text
    template = store.read_table("template_captions", S[0])["template_caption"][0]
    assert "- A smiling young man.\n  - template: " in text
    assert template in text or "Captions by the grammar" in text
    captions = numbers["captions"]
    assert captions["sources"] == {"llm": 3, "template": 6, "published": 0}
    assert captions["models"][0] == {
        "model": "chat1",
        "prompt_version": "2-abcd",
        "asked": 4,
        "accepted": 2,
        "attempts": 12,
    }
    assert sum(captions["refused"].values()) + sum(captions["not_asked"].values()) == captions["sources"]["template"]


def test_with_templates_alone_the_card_says_that_no_model_was_asked(store: Store) -> None:
    make_shard(store, S[0], ["none"] * 3)
    text, numbers, _ = release(store, S[:1])
    assert "No language model was asked." in text
    assert "Captions by a language model" not in text
    assert "A caption by the grammar says the labels of its face and nothing else." in text
    assert "rewrite" not in text.split("## Captions")[1].split("## Statistics")[0]
    assert numbers["captions"]["models"] == []


@pytest.mark.slow
def test_the_card_names_the_labels_that_no_caption_says(store: Store) -> None:
    released = make_shard(store, S[0], ["none"] * 4, excluded=["Attractive", "Chubby"])
    assert released["labels"].to_list() == [LABELS] * 4
    make_shard(store, S[1], ["none"] * 2)
    kept_out = ("Attractive", "Chubby", "Bald")
    text, numbers, _ = release(store, S[:2], kept_out=kept_out)
    assert "Attractive (a label of 4 faces), Chubby (a label of 4 faces), Bald (a label of 0 faces)." in text
    assert numbers["captions"]["labels_kept_out"] == {"Attractive": 4, "Chubby": 4}
    # Without a setting the rows themselves still tell.
    assert (
        "Labels kept out of captions, though `labels` has them: Attractive (a label of 4 faces)"
        in release(store, S[:2])[0]
    )
    assert "Captions say every label" in release(store, S[1:2])[0]


def test_what_is_not_stored_any_more_is_counted_as_unknown(store: Store) -> None:
    make_shard(store, S[0], ["llm", "unfaithful"])
    store.delete(store.table_key("llm_captions", S[0]))
    text, numbers, _ = release(store, S[:1])
    assert "Of 2 captions it is not stored any more how they came about." in text
    assert numbers["captions"]["sources"]["llm"] == 1


@pytest.mark.slow
@given(st.lists(st.sampled_from(["llm", "template"]), min_size=1, max_size=40), st.integers(1, 7))
def test_examples_do_not_depend_on_how_rows_are_divided_into_shards(sources: list[str], size: int) -> None:
    ids = [f"{sample_id(str(i))}_0" for i in range(len(sources))]
    probabilities = [[0.9]] * len(ids)
    frame = rows(
        DATASET, len(ids), face_id=ids, caption=ids, caption_source=sources, labels=[["Young"]] * len(ids),
        label_probabilities=probabilities,
    )  # fmt: skip
    whole, parts = CaptionTally(), CaptionTally()
    whole.add(frame, None, None)
    for start in reversed(range(0, len(frame), size)):
        parts.add(frame.slice(start, size), None, None)
    for source in ("llm", "template"):
        assert whole.examples(source) == parts.examples(source)
        assert len(whole.examples(source)) == min(3, sources.count(source))


def test_a_thousand_reasons_do_not_make_a_thousand_lines() -> None:
    count = 1000
    ids = [f"{sample_id(str(i))}_0" for i in range(count)]
    template = {"face_id": ids, "caption_source": ["template"] * count, "attempts": [1] * count}
    tally = CaptionTally()
    tally.add(
        rows(DATASET, count, **template),
        rows("llm_captions", count, **template, reason=[f"reason {i}" for i in range(count)], model=["m"] * count),
        None,
    )
    assert len(tally.refused) <= 41
    assert tally.refused.total() == count


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        {"caption_source": "llm", "caption_model": None},
        {"caption_source": "llm", "attempts": 0},
        {"caption_source": "template", "caption_model": "chat1"},
        {"caption_source": "nobody"},
        {"caption_source": None},
        {"caption_source": "template", "caption": "Another text."},
        {"label_probabilities": [0.9]},
    ],
)
def test_a_row_that_does_not_tell_fails_the_check(store: Store, wrong: dict) -> None:
    released = make_shard(store, S[0], ["llm", "none"])
    row = released.row(0 if wrong.get("caption_source") == "llm" else 1, named=True)
    changed = pl.DataFrame([{**row, **wrong}], schema=released.schema)
    assert not provenance(changed).passed
