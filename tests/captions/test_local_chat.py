"""Chat models in this process: small random ones for the mechanics, the bundled SmolLM2 for the real thing."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the llm extra is not installed")

from facecaption_ml.captions import check_faithful, template_caption
from facecaption_ml.captions.backends import checkpoints, shared_prefix
from facecaption_ml.captions.backends.chat import ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.backends.checkpoints import BUNDLED, bundled_file
from facecaption_ml.captions.backends.gguf_header import read_texts
from facecaption_ml.captions.backends.local_chat import LocalChatModel
from facecaption_ml.captions.guided.constraint import Constraint
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from facecaption_ml.taxonomy import Gender
from llm_server import running_chat_server
from tiny_chat_models import FACES, save_tiny


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_chat(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalChatModel]:
    # In bfloat16 rounding depends on the batch, which is not what these tests are about.
    monkeypatch.setattr(checkpoints, "compute_dtype", lambda precision, device: torch.float32)
    model = LocalChatModel(str(tiny_folder), tmp_path, batch_size=4)
    yield model
    model.close()


def questions(count: int) -> list[ChatRequest]:
    return [ChatRequest((("system", "Rewrite."), ("user", "caption " + "x" * (i % 4))), 7 * i) for i in range(count)]


def test_sliding_windows_are_not_claimed_to_be_supported() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    assert not shared_prefix.supports(MistralForCausalLM(config))


@pytest.mark.slow
def test_answers_end_by_themselves_or_are_cut_off(tiny_chat: LocalChatModel) -> None:
    assert tiny_chat.answer([], Sampling()) == []
    hot = [ChatRequest((("user", "hello"),), seed) for seed in range(40)]
    answers = tiny_chat.answer(hot, Sampling(temperature=20.0, top_p=1.0, max_new_tokens=150))
    ended = [answer for answer in answers if answer.text]
    assert ended
    for answer in ended:
        assert answer.text is not None
        assert "</s>" not in answer.text
        assert answer.fluency is not None
        assert answer.fluency < 0
    assert {a.failure for a in answers} <= {None, Failure.TRUNCATED, Failure.EMPTY}
    assert len({a.text for a in ended}) > 1
    short = tiny_chat.answer(hot, Sampling(temperature=20.0, top_p=1.0, max_new_tokens=1))
    assert any(answer.failure is Failure.TRUNCATED and answer.text is None for answer in short)


def test_tokens_are_counted_as_a_server_counts_them(tiny_chat: LocalChatModel) -> None:
    asked = questions(6)
    answers = tiny_chat.answer(asked, Sampling(temperature=20.0, top_p=1.0, max_new_tokens=9))
    alone = [tiny_chat.answer([one], Sampling(temperature=20.0, top_p=1.0, max_new_tokens=9))[0] for one in asked]
    # what prompts share is worked out once and counted for each
    assert [answer.prompt_tokens for answer in answers] == [answer.prompt_tokens for answer in alone]
    assert len({answer.prompt_tokens for answer in answers}) > 1
    assert all(answer.prompt_tokens > 10 for answer in answers)
    assert all(1 <= answer.completion_tokens <= 9 for answer in answers)
    assert {answer.completion_tokens for answer in answers if answer.failure is Failure.TRUNCATED} <= {9}


def test_model_answers_behind_a_real_endpoint(tiny_chat: LocalChatModel) -> None:
    pytest.importorskip("openai")
    from facecaption_ml.captions.backends.endpoint import EndpointChatModel

    def write(messages: list[dict[str, str]]) -> str:
        said = tuple((message["role"], message["content"]) for message in messages)
        tries = (tiny_chat.answer([ChatRequest(said, s)], Sampling(20.0, 1.0, 150))[0].text for s in range(40))
        return next(text for text in tries if text)

    with running_chat_server() as server:
        server.text = write
        asked = questions(2)
        answers = EndpointChatModel(server.url(), "tiny", None, timeout_s=30.0).answer(asked, Sampling())
    expected = [write([{"role": role, "content": text} for role, text in request.messages]) for request in asked]
    assert [answer.text for answer in answers] == [text.strip() for text in expected]


def one_line(error: pytest.ExceptionInfo[ChatModelError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert error.value.option == "model"
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", ["no/such-model", "{tmp}/nothing", "{tmp}", "{tmp}/none.gguf"])
def test_wrong_model_is_named_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = name.format(tmp=tmp_path)
    with pytest.raises(ChatModelError) as caught:
        LocalChatModel(model, tmp_path / "cache").answer(questions(1), Sampling())
    one_line(caught, model)


def test_broken_gguf_file_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file, cache = tmp_path / "broken.gguf", tmp_path / "cache"
    file.write_bytes(bundled_file().read_bytes()[:100_000])
    with pytest.raises(ChatModelError) as caught:
        LocalChatModel(str(file), cache).answer(questions(1), Sampling())
    one_line(caught, str(file))
    assert not cache.exists() or list(cache.iterdir()) == []


def test_model_without_chat_template_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "base", chat_template=None)
    with pytest.raises(ChatModelError) as caught:
        LocalChatModel(str(folder), tmp_path).answer(questions(1), Sampling())
    one_line(caught, "chat template")


def gguf(file: Path, *texts: tuple[str, str], words: int = 0) -> Path:
    """A GGUF file without tensors: its texts, and a vocabulary of so many words before them."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    vocabulary = struct.pack("<IIQ", 9, 8, words) + b"".join(text(f"w{k}") for k in range(words))
    scores = struct.pack("<IIQ", 9, 6, words) + bytes(4 * words)
    pairs = [text("tokenizer.ggml.tokens") + vocabulary, text("tokenizer.ggml.scores") + scores]
    pairs += [text(key) + struct.pack("<I", 8) + text(value) for key, value in texts]
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
    return file


def test_a_gguf_file_without_chat_template_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file, cache = gguf(tmp_path / "base.gguf", ("general.name", "Base"), words=3000), tmp_path / "cache"
    with pytest.raises(ChatModelError) as caught:
        LocalChatModel(str(file), cache).answer(questions(1), Sampling())
    one_line(caught, "base.gguf", "chat template")
    assert not cache.exists()


def test_the_head_of_a_gguf_file_is_read_past_its_vocabulary(tmp_path: Path) -> None:
    written = {"general.name": "Chat", "tokenizer.chat_template": "{{ messages }}"}
    assert read_texts(gguf(tmp_path / "chat.gguf", *written.items(), words=3000)) == written
    whole = (tmp_path / "chat.gguf").read_bytes()
    for cut in (0, 3, 20, 40, len(whole) - 1):
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="GGUF"):
            read_texts(tmp_path / "cut.gguf")


def test_model_id_follows_the_weights(tiny_folder: Path, tmp_path: Path) -> None:
    same = shutil.copytree(tiny_folder, tmp_path / tiny_folder.name)
    other = save_tiny(tmp_path / "other" / tiny_folder.name, seed=1)
    ids = [LocalChatModel(str(folder), tmp_path).model_id for folder in (tiny_folder, same, other)]
    assert ids[0] == ids[1] != ids[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the bundled model in it, after an unpacking that was interrupted."""
    try:
        bundled_file()
    except ChatModelError as error:
        pytest.skip(str(error))
    cache = tmp_path_factory.mktemp("models")
    scraps = cache / "tmpinterrupted"
    scraps.mkdir()
    (scraps / "config.json").write_text("{}")
    model = LocalChatModel(BUNDLED, cache)
    model.answer([ChatRequest((("user", "Hello"),), 0)], Sampling(max_new_tokens=1))
    model.close()
    return cache


@pytest.fixture(scope="module")
def smollm(unpacked: Path) -> Iterator[LocalChatModel]:
    model = LocalChatModel(BUNDLED, unpacked, batch_size=8)
    yield model
    model.close()


@pytest.mark.models
def test_gguf_is_unpacked_once(unpacked: Path, smollm: LocalChatModel) -> None:
    def state() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in unpacked.rglob("*")}

    before = state()
    assert [folder.name for folder in unpacked.iterdir() if folder.name.startswith("SmolLM2")]
    (answer,) = smollm.answer([ChatRequest((("user", "What is the capital of France?"),), 1)], Sampling(0.0, 1.0, 20))
    assert state() == before
    assert answer.text is not None
    assert "Paris" in answer.text


def constraint_for(template: str, labels: list[str], gender: Gender | None) -> Callable[..., Constraint]:
    return partial(Constraint, template, labels, gender, RewritingPrompt.load().vocabulary)


@pytest.mark.models
def test_real_model_under_guidance_writes_faithful_captions(smollm: LocalChatModel) -> None:
    prompt = RewritingPrompt.load()
    asked, rows = [], []
    for seed, (labels, gender) in enumerate(FACES):
        template = template_caption(labels, gender, seed)
        rows.append((labels, gender))
        asked.append(
            ChatRequest(prompt.messages(template, guided=True), seed, constraint_for(template, labels, gender))
        )
    answers = smollm.answer(asked, Sampling())
    written = [(answer.text, *row) for answer, row in zip(answers, rows, strict=True) if answer.text]
    assert len(written) >= 3, answers
    for text, labels, gender in written:
        assert check_faithful(text, labels, gender).faithful, (text, labels, gender)
    assert {answer.failure for answer in answers} <= {None, Failure.DEAD_END}
