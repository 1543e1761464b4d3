"""From options to a rewriter: what is refused, which backend is opened, and with what."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from facecaption_ml.captions.backends.chat import ChatModelError, Sampling
from facecaption_ml.captions.guided import calibration
from facecaption_ml.captions.guided.calibration import Calibration, calibration_of
from facecaption_ml.captions.rewrite.options import RewritingOptions
from facecaption_ml.captions.rewrite.prompt import PromptError
from facecaption_ml.captions.rewrite.rewriting import Rewriter, open_demonstrator, open_rewriter
from facecaption_ml.errors import naming_fields
from tiny_chat_models import save_tiny

CALIBRATION = Path(calibration.__file__).with_name("calibration.toml")


def opened(cache: Path, **options: Any) -> Rewriter:
    rewriter = open_rewriter(RewritingOptions(**options), device="cpu", threads=1, cache=cache, seed=5)
    assert rewriter is not None
    return rewriter


def test_every_option_is_described_and_none_can_be_misspelt_or_changed() -> None:
    assert all(field.description for field in RewritingOptions.model_fields.values())
    with pytest.raises(ValidationError, match="temprature"):
        RewritingOptions(temprature=1.0)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        RewritingOptions().attempts = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_new_tokens": 0}, {"attempts": 0}, {"batch_size": 0},
     {"concurrency": 0}, {"timeout_s": 0.0}, {"least_fluency": 0.1}, {"acceptance_floor": 1.1},
     {"client_errors": 0}, {"price_prompt": -1.0}, {"price_completion": -1.0}],
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        RewritingOptions(**wrong)  # type: ignore[arg-type]


def test_an_unknown_backend_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="choose among local, endpoint, vllm, none"):
        RewritingOptions(backend="grpc")


def test_the_key_is_not_shown() -> None:
    assert "sk-1" not in repr(RewritingOptions(api_key="sk-1"))  # type: ignore[arg-type]


def test_nobody_writes_where_the_backend_is_none(tmp_path: Path) -> None:
    none = RewritingOptions(backend="none", prompt="no such file")
    assert open_rewriter(none, device="cpu", threads=1, cache=tmp_path, seed=0) is None


def test_an_endpoint_gets_its_options_and_is_never_guided(tmp_path: Path) -> None:
    endpoint = pytest.importorskip("facecaption_ml.captions.backends.endpoint")
    url = "http://host:8000/v1"
    rewriter = opened(
        tmp_path,
        backend="endpoint",
        endpoint=url,
        model="m",
        guided=True,
        concurrency=3,
        timeout_s=7,
        attempts=2,
        batch_size=5,
    )
    assert isinstance(rewriter.model, endpoint.EndpointChatModel)
    assert (rewriter.model.model_id, rewriter.model.concurrency, rewriter.model.timeout_s) == ("m", 3, 7)
    assert (rewriter.guided, rewriter.least_fluency, rewriter.attempts, rewriter.seed) == (False, None, 2, 5)
    assert rewriter.chunk == 40
    assert rewriter.sampling == Sampling()
    assert rewriter.sampling == RewritingOptions().sampling
    parameters = inspect.signature(endpoint.EndpointChatModel).parameters
    for name in ("concurrency", "timeout_s", "client_errors"):
        assert parameters[name].default == RewritingOptions.model_fields[name].default


def test_the_name_of_the_model_is_what_rows_and_keys_have(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the llm extra is not installed")
    for host in ("a", "b"):
        where = {"backend": "endpoint", "endpoint": f"http://{host}:8000/v1", "model": "m"}
        assert opened(tmp_path, **where).model_id == "m"
        assert opened(tmp_path, **where, model_name=" Qwen2.5-7B ").model_id == "Qwen2.5-7B"
    with pytest.raises(ValidationError, match="printable"):
        RewritingOptions(model_name="a\nb")


def test_answers_of_an_endpoint_are_saved_after_a_few_turns_of_it(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the llm extra is not installed")
    where = {"backend": "endpoint", "endpoint": "http://h/v1", "model": "m"}
    assert opened(tmp_path, **where, batch_size=256, concurrency=16).chunk == 256


def test_a_model_in_this_process_can_be_guided(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the llm extra is not installed")
    folder = save_tiny(tmp_path / "tiny")
    rewriter = opened(tmp_path, backend="local", model=str(folder), guided=True, least_fluency=-2.0)
    assert (rewriter.guided, rewriter.least_fluency) == (True, -2.0)
    assert rewriter.model.model_id.startswith("tiny@")


def test_a_floor_of_fluency_holds_for_the_model_that_it_was_found_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("transformers", reason="the llm extra is not installed")
    caplog.set_level("INFO", logger="facecaption")
    folder = save_tiny(tmp_path / "tiny")
    assert opened(tmp_path, backend="local", model=str(folder), guided=True).least_fluency is None
    assert "no floor of fluency has been calibrated for tiny@" in caplog.text
    name = next(name for name in tomllib.loads(CALIBRATION.read_text()) if name != "rules")
    known = calibration_of(f"{name}/float32")
    assert known is not None
    assert known == calibration_of(f"{name}/bfloat16")
    assert known.least_fluency < -0.5
    assert calibration_of(name.replace("@", "@0")) is None


def test_a_floor_found_under_other_rules_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(name for name in tomllib.loads(CALIBRATION.read_text()) if name != "rules")
    monkeypatch.setattr(calibration, "VERSION", "another")
    assert calibration_of(name) is None


@pytest.mark.parametrize(("wins", "nonsense", "worth"), [(24, 1, True), (23, 0, False), (40, 2, False), (0, 0, False)])
def test_rewrites_count_where_they_win_often_and_are_hardly_ever_nonsense(
    wins: int, nonsense: int, worth: bool
) -> None:
    assert Calibration(-1.0, 60, wins, nonsense).worth_having == worth
    assert not Calibration(-1.0).worth_having


def test_a_demonstration_needs_no_backend_and_none_is_given_beside_one(tmp_path: Path) -> None:
    def demonstrator(**options: Any) -> Rewriter | None:
        return open_demonstrator(RewritingOptions(**options), device="cpu", threads=1, cache=tmp_path, seed=0)

    pytest.importorskip("transformers", reason="the llm extra is not installed")
    folder = str(save_tiny(tmp_path / "tiny"))
    assert demonstrator(backend="none", model=folder) is None
    assert demonstrator(backend="local", model=folder, demonstration=3) is None
    shown = demonstrator(backend="none", model=folder, demonstration=3)
    assert shown is not None
    assert shown.guided


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"backend": "endpoint", "endpoint": "ftp://x"}, "LLM_ENDPOINT: endpoint 'ftp://x' is no address"),
        ({"backend": "local", "model": "no/where.gguf"}, "LLM_MODEL: model 'no/where.gguf': no such file"),
        ({"backend": "endpoint", "endpoint": "http://h/v1", "prompt": "/no/file"}, "LLM_PROMPT: /no/file"),
    ],
)
def test_an_error_gets_the_callers_name_of_the_option(tmp_path: Path, options: dict[str, str], named: str) -> None:
    pytest.importorskip("openai", reason="the llm extra is not installed")
    with pytest.raises((ChatModelError, PromptError)) as raised, naming_fields("LLM_"):
        opened(tmp_path, **options)
    assert str(raised.value).startswith(named)
