"""Presets, the training record, number types and the learning rate: the paper's numbers, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from facecaption_ml.devices import autocast, compute_dtype
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.flip.errors import PresetError, TrainingError, named_options
from facecaption_ml.flip.model.presets import FROM_SCRATCH, Preset, preset_names, training_defaults
from facecaption_ml.flip.training.config import TEXT_COLUMNS, TrainingConfig
from facecaption_ml.flip.training.optimisation import learning_rate, warm_up_within
from facecaption_ml.flip.training.options import RUNTIME_ONLY, TrainingOptions

CPU = torch.device("cpu")


def config(**given: Any) -> TrainingConfig:
    """``given``: options, and fields of the configuration."""
    options: dict[str, Any] = {"preset": "tiny"}
    fields: dict[str, Any] = {"store": "/data", "shards": ("a", "b"), "variant": "flip"}
    for name, value in given.items():
        (options if name in TrainingOptions.model_fields else fields)[name] = value
    return TrainingConfig(options=TrainingOptions(**options), **fields)


# -- presets -----------------------------------------------------------------------------------------------------------


def test_base_is_the_papers() -> None:
    base = Preset.named("base")
    assert (base.image.size, base.image.patch, base.image.layers, base.image.width) == (224, 16, 12, 768)
    assert (base.text.layers, base.text.width, base.text.max_tokens) == (12, 768, 65)
    assert base.projection == 256
    training = TrainingOptions().resolved()
    assert training.preset == "base"
    assert (training.batch_size, training.queue_size, training.epochs, training.momentum) == (80, 61_440, 15, 0.995)
    rates = training.first_learning_rate, training.peak_learning_rate, training.last_learning_rate
    assert rates == (1e-6, 3e-5, 1e-6)
    assert (training.warm_up_steps, training.weight_decay) == (2000, 0.05)
    assert (training.soft_targets, training.soft_target_epochs) == (0.4, 2)


@pytest.mark.parametrize("name", preset_names())
def test_presets_come_back_from_json_and_have_whole_trainings(name: str) -> None:
    preset = Preset.named(name)
    assert Preset.from_dict(json.loads(json.dumps(preset.as_dict()))) == preset
    training = TrainingOptions(preset=name).resolved()
    assert None not in training.model_dump().values()
    assert training.resolved() == training
    assert training.queue_size % training.batch_size == 0  # one process can train it as it stands


def test_an_unknown_preset_is_answered_with_those_there_are() -> None:
    with pytest.raises(PresetError, match=r"^preset is 'huge': there are base, small, tiny") as error:
        config(preset="huge")
    assert named_options(error.value) == ("preset",)


@pytest.mark.parametrize(
    ("tower", "changed", "said"),
    [
        ("image", {"heads": 7}, "image width 96 is no multiple of 7 heads"),
        ("image", {"patch": 13}, "px are no multiple of patches of 13"),
        ("text", {"width": 128}, "cross-attention needs towers of one width"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(tower: str, changed: dict[str, int], said: str) -> None:
    tiny = Preset.named("tiny")
    with pytest.raises(PresetError, match=said):
        dataclasses.replace(tiny, **{tower: dataclasses.replace(getattr(tiny, tower), **changed)})


# -- the training record -------------------------------------------------------------------------------------------------


def test_a_record_travels_as_json() -> None:
    before = config(storage_options={"region": "eu"}, max_steps=7, versions={"data": "3"})
    assert TrainingConfig.from_json(before.to_json()) == before


def test_what_is_not_given_is_the_presets() -> None:
    assert config(epochs=None) == config()
    assert config(epochs=3).options.epochs == 3
    assert config(image_init="").options.image_init == FROM_SCRATCH
    assert config(preset="base").options.image_init == Preset.named("base").image_init
    assert config(preset="base", image_init=FROM_SCRATCH).options.image_init == FROM_SCRATCH


def test_a_whole_start_stands_in_the_place_of_the_towers_own() -> None:
    options = config(preset="base", init="/weights/flip").options
    assert (options.init, options.image_init, options.text_init) == ("/weights/flip", "", "")
    assert options.resolved() == options
    with pytest.raises(TrainingError, match=r"^init is /weights/flip, .*: leave text_init empty$") as error:
        config(init="/weights/flip", text_init="/weights/bert")
    assert named_options(error.value) == ("init", "text_init")


@pytest.mark.parametrize("variant", list(TEXT_COLUMNS))
def test_each_variant_reads_its_column_and_has_its_place(variant: str) -> None:
    assert config(variant=variant).text_column in ("caption", "template_caption", "alt_text")
    assert len({config(variant=each).text_column for each in TEXT_COLUMNS}) == 3
    assert config(variant=variant).prefix.endswith(f"/{variant}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"batch_size": 0}, "batch_size is 0: Input should be greater than or equal to 1"),
        ({"queue_size": -32}, "queue_size is -32"),
        ({"peak_learning_rate": math.nan}, "peak_learning_rate is nan"),
        ({"peak_learning_rate": math.inf}, "peak_learning_rate is inf"),
        ({"momentum": 1.01}, "momentum is 1.01: Input should be less than or equal to 1"),
        ({"soft_targets": math.nan}, "soft_targets is nan"),
        ({"accumulation": 0}, "accumulation is 0"),
    ],
)
def test_values_that_cannot_be_are_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError):
        config(**given)
    record = json.loads(config().to_json())
    record["options"] |= given
    with pytest.raises(TrainingError) as refusal:
        TrainingConfig.from_json(json.dumps(record))
    assert str(refusal.value).startswith(f"training configuration: {said}")
    assert "\n" not in str(refusal.value)


def test_an_unknown_variant_is_answered_with_those_there_are() -> None:
    with pytest.raises(TrainingError, match=r"^variant 'blip': there are flip, flip_template, flip_alt_text$"):
        config(variant="blip")


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_field_that_is_missing_or_unknown_is_named(change: str) -> None:
    record = json.loads(config().to_json())
    if change == "missing":
        del record["store"]
    else:
        record["options"]["storr"] = 0.9
    with pytest.raises(TrainingError, match=r"stor[er]: "):
        TrainingConfig.from_json(json.dumps(record))


def test_what_is_learned_does_not_depend_on_where_it_runs() -> None:
    there = config(store="s3://elsewhere", device="cuda", threads=8, loader_process=True, fresh=True, compile=True)
    assert there.reproducibility_fields() == config().reproducibility_fields()
    for name, value in {"seed": 1, "variant": "flip_template", "epochs": 3, "queue_size": 64, "shards": ("a",)}.items():
        assert config(**{name: value}).reproducibility_fields() != config().reproducibility_fields(), name


def test_every_option_is_described_and_says_whether_it_is_runtime_only() -> None:
    for name, field in TrainingOptions.model_fields.items():
        assert field.description, name
        assert field.json_schema_extra in (None, RUNTIME_ONLY), name
    decisive = TrainingOptions().reproducibility_fields()
    assert decisive.keys() >= {
        "preset",
        "init",
        "image_init",
        "text_init",
        *training_defaults("base"),
        "accumulation",
        "clip_norm",
    }
    assert {"threads", "processes", "compile", "fresh", "log_every", "checkpoint_minutes"}.isdisjoint(decisive)


# -- number types --------------------------------------------------------------------------------------------------------


def test_number_types_by_name() -> None:
    assert compute_dtype("fp32", CPU) is torch.float32
    assert compute_dtype("bf16", CPU) is torch.bfloat16
    assert compute_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    assert compute_dtype("fp16", torch.device("cuda")) is torch.float16
    with pytest.raises(FaceCaptionError, match="precision fp16 needs a GPU"):
        compute_dtype("fp16", CPU)
    with pytest.raises(FaceCaptionError, match="precision is 'tf32': choose among auto, bf16, fp16, fp32"):
        compute_dtype("tf32", CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_are_multiplied_in_the_type(dtype: torch.dtype) -> None:
    a = torch.ones(2, 2)
    with autocast(dtype, CPU):
        assert (a @ a).dtype is dtype


# -- the learning rate ---------------------------------------------------------------------------------------------------


def test_the_papers_rate_at_its_corners() -> None:
    rate = [learning_rate(step, 10_001, 1e-6, 3e-5, 1e-6, 2000) for step in range(10_001)]
    assert rate[0] == pytest.approx(1e-6)
    assert rate[1000] == pytest.approx((1e-6 + 3e-5) / 2)
    assert rate[2000] == max(rate) == pytest.approx(3e-5)
    assert rate[6000] == pytest.approx(
        (1e-6 + 3e-5) / 2 + (3e-5 - 1e-6) / 2 * math.cos(math.pi * 4000 / 8000), rel=1e-6
    )
    assert rate[10_000] == pytest.approx(1e-6)


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_a_warm_up_is_a_tenth_of_the_training_at_most(wanted: int, steps: int) -> None:
    found = warm_up_within(wanted, steps)
    assert found == wanted or (found < wanted and found - 1 < steps / 10 <= found)


@given(st.integers(1, 300), st.integers(0, 400), st.floats(0, 1e-4), st.floats(1e-4, 1e-2), st.floats(0, 1e-4))
def test_the_rate_rises_to_the_peak_once_and_falls_to_the_last(
    steps: int, warm_up: int, first: float, peak: float, last: float
) -> None:
    rates = [learning_rate(step, steps, first, peak, last, warm_up) for step in range(steps)]
    top = min(warm_up, steps - 1)
    assert rates[top] == pytest.approx(peak)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates[top:]))
    if steps - 1 > top:
        assert rates[-1] == pytest.approx(last, abs=1e-12)
