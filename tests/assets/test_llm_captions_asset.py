"""``llm_captions`` as an asset: what a shard becomes when the endpoint is well, ill or misnamed, and what the checks catch."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from captioned_shards import captioned_pipeline
from facecaption_assets.checks import tables as checks
from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_ml.schemas import empty
from facecaption_ml.storage.store import Store
from llm_server import ChatServer, running_chat_server

SHARD_NAMES = ["shard-00000", "shard-00001"]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with running_chat_server() as running:
        yield running


def pipeline(home: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> tuple[Pipeline, Store]:
    """Of two shards the first has faces."""
    return captioned_pipeline(home, monkeypatch, dict(zip(SHARD_NAMES, (6, 0), strict=True)), **settings)


def backwards(messages: list[dict[str, str]]) -> str:
    """A faithful rewrite of a template caption: its sentences after the first in reverse order."""
    first, *rest = messages[-1]["content"].rstrip(".").split(". ")
    return ". ".join([first, *rest[::-1]]) + ", as one can see."


@pytest.mark.slow
def test_an_endpoint_that_is_well_rewrites_and_is_asked_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ChatServer
) -> None:
    server.text = backwards
    made, store = pipeline(
        tmp_path, monkeypatch, llm_backend="endpoint", llm_endpoint=server.url(), llm_model="m", llm_guided=False
    )
    made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[1])
    found = store.read_table("llm_captions", SHARD_NAMES[0])
    assert set(found["caption_source"]) == {"llm"}
    assert found["caption"].str.ends_with("as one can see.").all()
    assert store.read_table("llm_captions", SHARD_NAMES[1]).equals(empty("llm_captions"))
    asked = sum(server.asked.values())
    made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[1])
    assert sum(server.asked.values()) == asked
    assert store.read_table("llm_captions", SHARD_NAMES[0]).equals(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "reason"), [("page", "malformed answer"), ("empty", "empty answer"), ("sorry", "refusal")]
)
def test_an_endpoint_that_is_ill_costs_the_rewrites_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ChatServer, behaviour: str, reason: str
) -> None:
    given = {"llm_backend": "endpoint", "llm_model": "m", "llm_attempts": 1}
    made, store = pipeline(tmp_path, monkeypatch, llm_endpoint=server.url(behaviour), **given)
    made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[0])
    found = store.read_table("llm_captions", SHARD_NAMES[0])
    assert set(found["caption_source"]) == {"template"}
    assert set(found["reason"]) == {reason}
    template = store.read_table("template_captions", SHARD_NAMES[0])["template_caption"]
    assert found["caption"].to_list() == template.to_list()


def metadata(made: Pipeline, shard: str) -> dict[str, object]:
    event = made.instance.get_latest_materialization_event(dg.AssetKey("llm_captions"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.partition == shard
    return {name: entry.value for name, entry in event.asset_materialization.metadata.items()}


@pytest.mark.slow
def test_tokens_and_their_price_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ChatServer) -> None:
    server.text = backwards
    given = {"llm_backend": "endpoint", "llm_model": "m", "llm_price_prompt": 1000.0, "llm_price_completion": 10_000.0}
    made, _ = pipeline(tmp_path, monkeypatch, llm_endpoint=server.url("usage"), **given)
    made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[0])
    asked = sum(server.asked.values())
    told = metadata(made, SHARD_NAMES[0])
    assert told["answers asked for"] == asked
    assert (told["prompt tokens"], told["completion tokens"]) == (200 * asked, 30 * asked)
    assert told["cost"] == pytest.approx(asked * (200 * 1000 + 30 * 10_000) / 1e6)


@pytest.mark.slow
def test_an_endpoint_without_credit_ends_the_run_with_its_words_and_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ChatServer
) -> None:
    server.text, server.credit = backwards, 4
    given = {"llm_backend": "endpoint", "llm_model": "m", "llm_concurrency": 1, "llm_client_errors": 2}
    made, store = pipeline(tmp_path, monkeypatch, llm_endpoint=server.url("credit"), **given)
    with pytest.raises(RunFailedError, match="402 This request requires more credits"):
        made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[0])
    assert len(server.times) == 4 + 2
    server.credit = 100
    made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[0])
    found = store.read_table("llm_captions", SHARD_NAMES[0])
    assert set(found["caption_source"]) == {"llm"}
    assert len(server.times) == 6 + len(found["caption"].unique()) - 4


@pytest.mark.slow
def test_the_servers_words_stand_in_the_row_and_in_the_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ChatServer
) -> None:
    server.text = backwards
    given = {"llm_backend": "endpoint", "llm_model": "m", "llm_attempts": 1, "llm_concurrency": 1}
    made, store = pipeline(tmp_path, monkeypatch, llm_endpoint=server.url("every-other-400"), **given)
    made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[0])
    reasons = set(store.read_table("llm_captions", SHARD_NAMES[0])["reason"].drop_nulls())
    assert reasons == {"endpoint error: 400 this model's context is 16 tokens"}
    told = metadata(made, SHARD_NAMES[0])
    assert told["template kept: endpoint error"]
    assert "this model's context is 16 tokens" in str(told["errors of the endpoint"])


@pytest.mark.slow
def test_no_backend_keeps_the_template_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, store = pipeline(tmp_path, monkeypatch, llm_backend="none")
    made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[0])
    assert set(store.read_table("llm_captions", SHARD_NAMES[0])["reason"]) == {"FACECAPTION_LLM_BACKEND is none"}
    told = metadata(made, SHARD_NAMES[0])
    assert told["rewriting"] == "no language model was asked"
    of_a_model = {"acceptance rate", "from the LLM", "mean attempts", "rewrites", "what came of the template captions"}
    assert not of_a_model & set(told)
    assert not [name for name in told if name.startswith("template kept")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"llm_backend": "local", "llm_model": "no/where.gguf"}, "FACECAPTION_LLM_MODEL"),
        ({"llm_backend": "endpoint", "llm_endpoint": "ftp://x"}, "FACECAPTION_LLM_ENDPOINT"),
        ({"llm_backend": "vllm"}, "facecaption[vllm]"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], named: str
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # not installed, even where it is
    made, _ = pipeline(tmp_path, monkeypatch, **settings)
    with pytest.raises(RunFailedError, match=re.escape(named)) as caught:
        made.run("llm_captions", first=SHARD_NAMES[0], last=SHARD_NAMES[0])
    assert "\n" not in str(caught.value)


def test_the_checks_catch_what_they_are_for() -> None:
    frame = pl.DataFrame({"face_id": ["f_0"], "caption": ["<p>A man."]})
    assert not checks.clean_text(frame).passed
    final = pl.DataFrame(
        {"caption": ["A man.", "A lad."], "caption_source": ["llm", "template"], "reason": [None, "unfaithful"]}
    ).with_columns(face_id=pl.Series(["f_0", "f_1"]))
    template = pl.DataFrame({"template_caption": ["A man.", "A lad."]})
    assert not checks.explained(final, template).passed
    assert checks.explained(final.tail(1), template.tail(1)).passed
    assert not checks.acceptance(4, 10, 0.5).passed
    assert not checks.acceptance(4, 10, 0.5).blocks
    assert checks.acceptance(0, 0, 0.5).passed
