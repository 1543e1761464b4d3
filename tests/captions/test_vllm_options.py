"""What vLLM's engine is given. It is a stand-in with the interface that vLLM documents: the package needs a GPU host."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.rewrite.options import RewritingOptions
from facecaption_ml.captions.rewrite.rewriting import Rewriter, open_rewriter
from facecaption_ml.schemas import SCHEMAS


@dataclasses.dataclass
class EngineArgs:
    """Some of vLLM's."""

    model: str = ""
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    dtype: str = "auto"
    quantization: str | None = None
    enable_prefix_caching: bool | None = None
    kv_cache_dtype: str = "auto"


class Engine:
    """Answers with the last word that it was told; keeps what it was given and how many requests each call had."""

    made: list[dict[str, Any]]
    calls: list[int]

    def __init__(self, **arguments: Any) -> None:
        type(self).made.append(arguments)

    def chat(self, conversations: list[Any], params: list[SimpleNamespace], use_tqdm: bool) -> list[SimpleNamespace]:
        type(self).calls.append(len(conversations))
        ends = ["stop", "length"] if len(conversations) == 2 else ["stop"] * len(conversations)
        return [
            SimpleNamespace(
                prompt_token_ids=[1, 2, 3],
                outputs=[SimpleNamespace(text=f"hello {p.seed} {p.max_tokens}", finish_reason=end, token_ids=[4, 5])],
            )
            for p, end in zip(params, ends, strict=True)
        ]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    Engine.made, Engine.calls = [], []
    vllm = SimpleNamespace(LLM=Engine, SamplingParams=SimpleNamespace, EngineArgs=EngineArgs, __version__="0.30.0")
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    return Engine


def opened(folder: Path, **options: Any) -> Rewriter:
    given = RewritingOptions(backend="vllm", model="org/m", **options)
    rewriter = open_rewriter(given, device="cpu", threads=1, cache=folder, seed=0)
    assert rewriter is not None
    return rewriter


def test_the_engine_is_told_what_the_options_say_and_the_rest_is_left_to_it(
    tmp_path: Path, engine: type[Engine]
) -> None:
    opened(tmp_path, batch_size=96)
    assert engine.made == [
        {
            "model": "org/m",
            "max_num_seqs": 96,
            "tensor_parallel_size": 1,
            "dtype": "auto",
            "enable_prefix_caching": True,
        }
    ]
    own = {"max_num_seqs": 512, "max_num_batched_tokens": 16_384, "gpu_memory_utilization": 0.85, "max_model_len": 2048}
    opened(tmp_path, vllm={**own, "quantization": "fp8", "engine_args": '{"kv_cache_dtype": "fp8"}'})
    assert engine.made[1].items() >= {**own, "quantization": "fp8", "kv_cache_dtype": "fp8"}.items()


def test_an_argument_that_the_engine_does_not_have_is_named_before_anything_is_loaded(
    tmp_path: Path, engine: type[Engine]
) -> None:
    with pytest.raises(
        ChatModelError, match=r"vLLM 0\.30\.0 has no argument 'kv_cache_type': did you mean 'kv_cache_dtype'\?"
    ) as e:
        opened(tmp_path, vllm={"engine_args": {"kv_cache_type": "fp8"}})
    assert e.value.option == "vllm_engine_args"
    assert engine.made == []


def test_a_host_without_a_gpu_is_named_and_not_the_model(
    tmp_path: Path, engine: type[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this host has a GPU")

    def start(_: Engine, **arguments: Any) -> None:
        raise RuntimeError("Device string must not be empty")  # what vLLM 0.30 says there

    monkeypatch.setattr(engine, "__init__", start)
    with pytest.raises(ChatModelError, match=r"must not be empty.*no GPU on this host") as e:
        opened(tmp_path)
    assert e.value.option == "backend"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"max_num_seqs": 8}', "'max_num_seqs' cannot be set here: it has a setting of its own"),
        ('{"model": "x"}', "'model' cannot be set here"),
        ("[1]", "it should be a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_other_arguments_are_a_json_object_without_those_that_have_a_setting(given: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RewritingOptions(backend="vllm", vllm={"engine_args": given})


def test_answers_come_in_the_order_asked_with_the_tokens_that_they_took(tmp_path: Path, engine: type[Engine]) -> None:
    model = opened(tmp_path).model
    first, second = model.answer([ChatRequest((("user", "hello"),), seed) for seed in (7, 8)], Sampling())
    assert first == Answer("hello 7 120")
    assert (first.prompt_tokens, first.completion_tokens) == (3, 2)
    assert second.failure is Failure.TRUNCATED


@pytest.mark.slow
def test_one_engine_has_the_captions_of_all_shards_thousands_in_a_call(tmp_path: Path, engine: type[Engine]) -> None:
    rewriter = opened(tmp_path, attempts=1)
    for shard in range(2):
        rows = [
            {"face_id": f"{n:016x}_0", "template_caption": f"She has {shard} or {n} marks.", "labels": []}
            for n in range(5000)
        ]
        rewriter.rewrite(pl.DataFrame(rows, dict(SCHEMAS["template_captions"])))
    assert len(engine.made) == 1
    assert engine.calls == [4096, 904] * 2
