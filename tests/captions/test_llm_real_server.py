"""The endpoint backend against a server that nobody here wrote: ``transformers serve`` with the bundled GGUF model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("openai", reason="the llm extra is not installed")
pytest.importorskip("fastapi", reason="transformers serve needs it (the dev extra)")
pytest.importorskip("uvicorn", reason="transformers serve needs it")

from facecaption_ml.captions import check_faithful, template_caption
from facecaption_ml.captions.backends.chat import ChatModelError, ChatRequest, Sampling
from facecaption_ml.captions.backends.checkpoints import bundled_file, load_chat_model
from facecaption_ml.captions.backends.endpoint import EndpointChatModel
from facecaption_ml.captions.rewrite.answer_cache import AnswerCache
from facecaption_ml.captions.rewrite.judgement import unclean
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from facecaption_ml.captions.rewrite.rewriting import Rewriter
from facecaption_ml.captions.rewrite.usage import Usage
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import Gender
from transformers_server import transformers_server

pytestmark = [pytest.mark.models, pytest.mark.processes, pytest.mark.timeout(900)]
FACES: list[tuple[list[str], Gender]] = [
    (["Young", "Smiling", "Blond_Hair"], "female"),
    (["Male", "Eyeglasses", "Black_Hair", "Goatee"], "male"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The server's address, and the name by which it knows its model."""
    try:
        bundled_file()
    except ChatModelError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("served")
    load_chat_model("smollm2-135m-instruct", folder, "cpu")  # unpacks the GGUF file
    (model,) = (path for path in folder.iterdir() if (path / "config.json").is_file())
    with transformers_server(model, folder / "server.log") as url:
        yield url, str(model)


def test_captions_come_out_of_a_real_server_faithful_or_with_a_reason(served: tuple[str, str], tmp_path: Path) -> None:
    rows = [
        (f"f_{i}", template_caption(labels, gender, seed=i), labels, gender) for i, (labels, gender) in enumerate(FACES)
    ]
    frame = pl.DataFrame(rows, dict(SCHEMAS["template_captions"]), orient="row")
    url, name = served
    model = EndpointChatModel(url, name, concurrency=2, timeout_s=300.0, retries=0)
    rewriter = Rewriter(model, RewritingPrompt.load(), Sampling(max_new_tokens=40), attempts=1, model_name="SmolLM2")
    usage, store = Usage(), Store(str(tmp_path))
    captions = rewriter.rewrite(frame, AnswerCache(store, "m/s"), usage=usage)
    assert not usage.errors
    assert usage.requests >= len(FACES)
    assert usage.prompt_tokens > 200 * usage.requests
    assert 0 < usage.completion_tokens <= 40 * usage.requests
    for row, (labels, gender) in zip(captions.iter_rows(named=True), FACES, strict=True):
        assert (row["caption_source"] == "llm") == (row["reason"] is None)
        assert check_faithful(row["caption"], labels, gender).faithful
        assert unclean(row["caption"]) is None
    again = Usage()
    assert rewriter.rewrite(frame, AnswerCache(store, "m/s"), usage=again).equals(captions)
    assert (again.requests, again.kept) == (0, usage.requests)


def test_the_extra_body_reaches_a_real_server(served: tuple[str, str]) -> None:
    url, name = served
    request = ChatRequest((("user", "Say hello."),), 1)
    known = Sampling(max_new_tokens=8, extra_body='{"chat_template_kwargs": {"enable_thinking": false}}')
    (answer,) = EndpointChatModel(url, name, timeout_s=300.0).answer([request], known)
    assert answer.failure is None or str(answer.failure) == "cut off"
    unknown = Sampling(max_new_tokens=8, extra_body='{"colour": "blue"}')
    with pytest.raises(ChatModelError, match=r"refused 2 requests in a row alike.*422 Unexpected fields.*colour"):
        EndpointChatModel(url, name, client_errors=2, timeout_s=300.0).answer([request] * 2, unknown)
