"""An asset's code version moves with every setting that its result depends on, and with no other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

import facecaption_assets.factories.code_versions as versions
from facecaption_assets.definitions import build_definitions
from facecaption_assets.settings import SETTINGS, Settings, load_settings
from facecaption_assets.settings.naming import Setting
from settings_read import READ, VLLM

# Under guided decoding each setting of rewriting counts; others leave some idle.
GUIDED = {"profile": "sample", "llm_backend": "local", "llm_guided": True}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(**GUIDED)


def reads_of(settings: Settings) -> dict[str, str]:
    """Every asset's code version under these settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        specs = build_definitions(settings).resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec.code_version or "" for spec in specs}


def another(setting: Setting, value: Any) -> Any:
    """A value of the setting that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(value + 1)
    options = get_args(setting.info.annotation)
    if options and all(isinstance(option, str) for option in options):
        return next(option for option in options if option != value)
    if isinstance(value, Mapping):
        return {"other": Path("/other")}
    if isinstance(value, tuple):
        return (*value, "other")
    return "other" if setting.info.annotation is str else 7


def test_each_asset_names_the_settings_that_it_is_known_to_depend_on(settings: Settings) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        specs = build_definitions(settings).resolve_all_asset_specs()
    variables = {setting.variable: name for name, setting in SETTINGS.items()}
    found = {spec.key.to_user_string(): {variables[key] for key in spec.metadata if key in variables} for spec in specs}
    assert found == READ


@cache
def _under(**changes: Any) -> dict[str, Any]:
    return reads_of(load_settings(**GUIDED).replaced(**changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attribute_threshold", 0.9),
        ("min_labels", 3),
        ("seed", 7),
        ("min_face_side", 64),
        ("llm_temperature", 0.1),
        ("flip_momentum", 0.9),
        ("benchmark_runs", 9),
        ("release_images", True),
        ("clip", "openai/clip-vit-large-patch14"),
    ],
)
def test_a_changed_setting_moves_the_code_version_of_what_reads_it_and_of_nothing_else(name: str, value: Any) -> None:
    before, after = _under(), _under(**{name: value})
    assert {asset for asset in before if before[asset] != after[asset]} == {
        a for a, read in READ.items() if name in read
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "setting", "value", "moves"),
    [
        ("none", "llm_model", "another/model", False),
        ("none", "llm_guided", False, False),
        ("none", "llm_backend", "local", True),
        ("endpoint", "llm_model", "another", True),
        ("endpoint", "llm_guided", False, False),
        ("vllm", "llm_least_fluency", -9.0, False),
        ("vllm", "vllm_max_num_seqs", 512, False),
        ("vllm", "vllm_quantization", "fp8", True),
        ("local", "llm_least_fluency", -9.0, True),
        ("local", "llm_model", "another/model", True),
    ],
)
def test_what_the_chosen_backend_does_without_makes_no_caption_stale(
    backend: str, setting: str, value: Any, moves: bool
) -> None:
    before, after = _under(llm_backend=backend), _under(**{"llm_backend": backend, setting: value})
    moved = {asset for asset in before if before[asset] != after[asset]} - {"rewriting_demonstration"}
    assert moved == ({"llm_captions"} if moves else set())


def test_the_backends_that_can_be_guided_are_those_that_say_so() -> None:
    from importlib import import_module

    from facecaption_ml.captions.backends.registry import BACKENDS, GUIDABLE

    for name, place in BACKENDS.items():
        module, _, kind = place.partition(":")
        backend = getattr(import_module(f"facecaption_ml.captions.backends.{module}"), kind)
        assert backend.supports_constraints == (name in GUIDABLE), name


def test_every_setting_is_read_by_an_asset_or_is_known_to_change_no_result(settings: Settings) -> None:
    read = set().union(*READ.values(), VLLM)
    unread = {name for name, setting in SETTINGS.items() if not versions.is_operational(setting)} - read
    assert not unread, "declare them in `reads` of the assets that depend on them, or as OPERATIONAL"
    assert not read & {name for name, setting in SETTINGS.items() if versions.is_operational(setting)}


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if not versions.is_operational(setting)])
def test_no_two_values_of_a_setting_have_one_code_version(name: str, settings: Settings) -> None:
    path = ".".join(SETTINGS[name].path)
    changed = settings.replaced(**{name: another(SETTINGS[name], SETTINGS[name].value(settings))})
    assert versions.code_version(settings, "1", [path]) != versions.code_version(changed, "1", [path])


def test_a_file_counts_by_its_content_and_one_that_is_absent_is_missing(tmp_path: Path, settings: Settings) -> None:
    def version(path: Path) -> str:
        return versions.code_version(settings.replaced(grammar=str(path)), "1", ["captions.grammar"])

    (tmp_path / "a.pcfg").write_text("S -> A")
    (tmp_path / "b.pcfg").write_text("S -> A")
    absent = version(tmp_path / "c.pcfg")
    assert version(tmp_path / "a.pcfg") == version(tmp_path / "b.pcfg") != absent
    (tmp_path / "b.pcfg").write_text("S -> B -> C")
    assert version(tmp_path / "a.pcfg") != version(tmp_path / "b.pcfg")
    line = versions.settings_line(settings.replaced(grammar=str(tmp_path / "c.pcfg")), ["captions.grammar"])
    assert line == f"GRAMMAR {tmp_path}/c.pcfg (missing)"
    reads_of(
        settings.replaced(grammar=str(tmp_path / "c.pcfg"), detector_weights=str(tmp_path), llm_model="/none.gguf")
    )


def test_the_bundled_grammar_is_the_same_from_a_copy(tmp_path: Path, settings: Settings) -> None:
    from facecaption_assets.factories.file_digests import GRAMMAR

    (tmp_path / "own.pcfg").write_bytes(GRAMMAR.read_bytes())
    copied = settings.replaced(grammar=str(tmp_path / "own.pcfg"))
    both = [versions.code_version(given, "1", ["captions.grammar"]) for given in (settings, copied)]
    assert both[0] == both[1]


def test_every_data_file_of_captioning_is_known_to_the_code_versions() -> None:
    from facecaption_assets.factories.file_digests import CAPTIONING, LEXICON

    room = LEXICON.parents[1]
    assert {file for file in room.rglob("*") if file.suffix in (".toml", ".pcfg")} == set(CAPTIONING)


def test_descriptions_are_built_from_the_settings(settings: Settings) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed = settings.replaced(attribute_threshold=0.77, min_labels=3, min_face_score=0.66, min_face_side=99)
        specs = {spec.key.to_user_string(): spec for spec in build_definitions(changed).resolve_all_asset_specs()}
    assert "p > 0.77" in (specs["face_attributes"].description or "")
    assert "at least 3 labels" in (specs["face_attributes"].description or "")
    assert "0.66" in (specs["face_crops"].description or "")
    assert "99 px" in (specs["face_crops"].description or "")
    assert specs["face_attributes"].metadata["FACECAPTION_ATTRIBUTE_THRESHOLD"] == "0.77"
