"""Results as JSON: whole round trips, equal bytes, no number that is none, and what is said of a damaged file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.benchmarks.result import TASKS, BenchmarkResult, Measurement, read_results
from facecaption_ml.storage.store import Store, StoreError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False)
measured = st.builds(
    Measurement, words, words, numbers, spread=st.none() | numbers, runs=st.integers(1, 9), why=st.just("")
)
undefined = st.builds(Measurement, words, words, st.none(), why=st.text(min_size=1, max_size=6).filter(str.isprintable))
measurements = st.lists(measured | undefined, max_size=4)
results = st.builds(
    BenchmarkResult,
    task=st.sampled_from(TASKS),
    model=words,
    data=words,
    measurements=measurements,
    baselines=st.dictionaries(words, measurements, max_size=2),
    counts=st.dictionaries(words, st.integers(0, 10**9), max_size=3),
    protocol=st.dictionaries(words, words, max_size=3),
    versions=st.dictionaries(words, words, max_size=3),
    curves=st.dictionaries(words, st.lists(st.tuples(numbers, numbers), max_size=3), max_size=2),
    notes=st.lists(words, max_size=3),
)


@given(results)
@examples(60)
def test_what_was_written_is_read_back_and_equal_results_are_equal_bytes(result: BenchmarkResult) -> None:
    data = result.as_json()
    again = BenchmarkResult.from_json(data)
    assert again == result
    assert again.as_json() == data
    turned = dataclasses.replace(result, counts=dict(reversed(result.counts.items())))
    assert turned.as_json() == data


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_or_spread_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^text R@1 is {value}: an undefined number is None, with the reason$"):
        Measurement("text", "R@1", value)
    with pytest.raises(ValueError, match=rf"^text R@1 is {value}: "):
        Measurement("text", "R@1", 0.5, spread=value)


def test_an_undefined_value_needs_its_reason() -> None:
    with pytest.raises(ValueError, match=r"^text R@1 is not defined: say why$"):
        Measurement("text", "R@1", None)
    assert Measurement("text", "R@1", None, why="one class only").value is None


def result_of(task: str, model: str) -> BenchmarkResult:
    return BenchmarkResult(task, model, "sample", [Measurement("100 %", "accuracy", 0.5)], {}, notes=["a note"])


def test_results_are_read_by_task_data_and_model_and_pictures_beside_them_are_none(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    written = [result_of(task, model) for task in reversed(TASKS) for model in ("flip", "clip")]
    for result in written:
        assert result.write(store) == store.uri(f"benchmarks/{result.task}/sample/{result.model}.json")
        store.write_bytes(f"{result.key}.layers.png", b"a picture")
    found = read_results(store)
    assert [(result.task, result.model) for result in found] == [(t, m) for t in TASKS for m in ("clip", "flip")]
    assert sorted(found, key=lambda r: r.key) == sorted(written, key=lambda r: r.key)
    assert read_results(Store(str(tmp_path / "empty"))) == []


VALID = json.loads(result_of("retrieval", "flip").as_json())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        result_of("retrieval", "flip").as_json()[:-20],
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        json.dumps({**VALID, "measurements": [{"setting": "a"}]}).encode(),
        json.dumps({**VALID, "measurements": 3}).encode(),
        json.dumps({**VALID, "curves": {"a": [[1]]}}).encode(),
        json.dumps({**VALID, "baselines": []}).encode(),
        json.dumps({**VALID, "more": 1}).encode(),
        json.dumps({**VALID, "measurements": [{"setting": "a", "metric": "b", "value": math.nan}]}).encode(),
    ],
)
def test_a_file_that_is_no_result_is_named_in_one_line(tmp_path: Path, data: bytes) -> None:
    store = Store(str(tmp_path))
    result_of("retrieval", "clip").write(store)
    store.write_bytes("benchmarks/retrieval/sample/flip.json", data)
    with pytest.raises(StoreError) as refused:
        read_results(store)
    assert str(refused.value).startswith(f"{tmp_path}/benchmarks/retrieval/sample/flip.json is no benchmark result (")
    assert str(refused.value).endswith("): measure it again")
    assert "\n" not in str(refused.value)
