"""``facecaption plan``: the arithmetic, what is measured here, what is said where it is not, and bad input."""

from __future__ import annotations

import json
from math import isnan, nan
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_assets.commands.plan import read_count, show_plan
from facecaption_assets.machines.compute import CPU, DOWNLOAD, EIGHT_A100, ONE_A100
from facecaption_assets.plan.estimate import TOTALLED, Plan, estimate
from facecaption_assets.plan.planning import Request, make_plan, reference_speed
from facecaption_assets.plan.rates import PlanError, Rates, bundled, load_rates
from facecaption_assets.plan.report import as_markdown
from facecaption_assets.plan.stages import FLIP, FUNNEL, STAGES, Measured, Stage
from facecaption_assets.settings import Settings, load_settings
from facecaption_ml.storage.store import Store
from small_dataset import make_data_set, settings_of

MILLION = 1_000_000
CROPS = next(stage for stage in STAGES if stage.asset == "face_crops")
Values = list[float]


def rates_of(own: Path | None = None) -> Rates:
    return load_rates(load_settings(), own)


def planned(urls: int, speeds: Values, sizes: Values, stages: tuple[Stage, ...] = STAGES) -> Plan:
    """By the paper's shares, each stage with the rows a second and bytes a row given, and FLIP at 1,000 pairs a second."""
    rates, paper = rates_of(), bundled()["paper"]
    funnel = {point: urls * paper[point] / paper["urls"] for point in FUNNEL}
    funnel["pairs"] = funnel["released"]
    measured = {stage.asset: Measured(bytes_per_row=size) for stage, size in zip(STAGES, sizes, strict=True)}
    rows = [
        estimate(stage, (speed, "given"), ONE_A100, funnel, measured, rates)
        for stage, speed in zip(stages, speeds, strict=True)
    ]
    rows.append(estimate(FLIP, (1000.0, "given"), EIGHT_A100, funnel, measured, rates, trainings=3))
    return Plan(urls, rates.currency, funnel, pl.DataFrame(rows).fill_nan(None))


def per_stage(values: st.SearchStrategy[float]) -> st.SearchStrategy[Values]:
    return st.lists(st.just(nan) | values, min_size=len(STAGES), max_size=len(STAGES))


SPEEDS, SIZES = per_stage(st.floats(0.01, 1e6)), per_stage(st.floats(1, 1e6))


@examples(50)
@given(urls=st.integers(20_000, 10**9), speeds=SPEEDS, sizes=SIZES)
def test_twice_the_urls_take_twice_the_machine_hours(urls: int, speeds: Values, sizes: Values) -> None:
    once, twice = planned(urls, speeds, sizes), planned(2 * urls, speeds, sizes)
    hours = [plan.stages["machine_hours"].to_list() for plan in (once, twice)]
    assert [None if value is None else pytest.approx(2 * value) for value in hours[0]] == hours[1]
    assert [value is None for value in hours[0]] == [isnan(speed) for speed in [*speeds, 1000.0]]
    assert twice.totals["gpu_hours"] == pytest.approx(2 * once.totals["gpu_hours"])


@pytest.mark.slow
@examples(50)
@given(speeds=SPEEDS, sizes=SIZES)
def test_totals_are_the_sums_of_the_stages_and_say_which_they_lack(speeds: Values, sizes: Values) -> None:
    plan = planned(MILLION, speeds, sizes)
    for name in TOTALLED:
        values = dict(plan.stages.select("asset", name).iter_rows())
        assert plan.totals[name] == pytest.approx(sum(value for value in values.values() if value is not None))
        assert plan.left_out.get(name, []) == [asset for asset, value in values.items() if value is None]
    costs = sum(plan.totals[name] for name in ("machine_cost", "storage_cost", "request_cost"))
    assert plan.totals["cost"] == pytest.approx(costs)


def test_by_hand() -> None:
    expected = {"machines.a100": 8, "price.a100": 4.0, "price.storage": 0.023, "storage.months": 1}
    assert {name: rates_of()[name] for name in expected} == expected
    sizes: Values = [{"face_crops": 20_000.0, "raw_images": 50_000.0}.get(stage.asset, nan) for stage in STAGES]
    crops, flip = planned(50 * MILLION, [100.0], sizes, (CROPS,)).stages.iter_rows(named=True)
    assert crops["rows"] == 37 * MILLION
    assert crops["machine_hours"] == pytest.approx(37e6 / 100 / 3600)
    assert (crops["gpu_hours"], crops["hours"]) == (crops["machine_hours"], pytest.approx(crops["machine_hours"] / 8))
    assert crops["stored_bytes"] == 23e6 * 20_000
    assert crops["machine_cost"] == pytest.approx(4 * crops["machine_hours"])
    assert crops["storage_cost"] == pytest.approx(460 * 0.023)
    # 5,000 shards of 92 MB each: two POST, and a PUT for every 16 MiB.
    assert crops["put_requests"] == pytest.approx(5000 * 2 + 460e9 / 16_777_216)
    assert crops["get_requests"] == pytest.approx(5000 * 4 * 5 + 2.5e12 / 20e6)
    assert flip["machine_hours"] == pytest.approx(3 * 15 * 15e6 / 1000 / 3600)
    assert flip["gpu_hours"] == pytest.approx(8 * flip["machine_hours"])
    assert flip["get_requests"] == pytest.approx(3 * 15 * 460e9 / 20e6)


def test_detection_is_no_faster_than_its_pictures_are_decoded(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[reference.core]\ndecoding = 10")
    assert reference_speed(CROPS, ONE_A100, rates_of()) == pytest.approx(510 * 0.32)
    assert reference_speed(CROPS, ONE_A100, rates_of(own)) == 10 * ONE_A100.cores


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DAGSTER_HOME", "")
    return settings_of(tmp_path)


def plan_of(home: Settings, request: Request) -> tuple[Plan, dict[str, dict[str, Any]]]:
    plan = make_plan(request, home, Store(home.store_root), dg.DagsterInstance.get(), load_rates(home, None))
    return plan, {stage["asset"]: stage for stage in plan.stages.iter_rows(named=True)}


@pytest.mark.slow
def test_speeds_and_shares_are_those_of_this_installation(home: Settings) -> None:
    make_data_set(home)
    plan, stages = plan_of(home, Request(MILLION))
    assert plan.funnel["released"] == pytest.approx(MILLION * 4 / 6)
    assert stages["raw_images"]["rows_per_second"] == pytest.approx(3 / 2.0)
    assert stages["raw_images"]["speed_origin"] == "2 shards"
    assert (stages["raw_images"]["machine"], stages["face_crops"]["machine"]) == ("download", "a100")
    size = next(Path(home.store_root, "raw_images").glob("*.parquet")).stat().st_size
    assert stages["raw_images"]["stored_bytes"] == pytest.approx(MILLION / 3 * size, rel=0.05)


@pytest.mark.slow
def test_a_cpus_speed_does_not_become_gpu_hours_unless_asked(home: Settings) -> None:
    make_data_set(home)
    plan, stages = plan_of(home, Request(MILLION))
    assert stages["face_crops"]["rows_per_second"] == pytest.approx(510 * 0.32)
    assert stages["face_crops"]["speed_origin"] == "reference"
    assert any(text.startswith("face_crops: ran at 4.0 rows/s here, on no GPU") for text in plan.assumptions)
    plan, stages = plan_of(home, Request(MILLION, as_measured=True))
    assert stages["face_crops"]["rows_per_second"] == pytest.approx(4.0)
    assert any(text.startswith("face_crops: --as-measured") for text in plan.assumptions)


def test_before_anything_has_run_the_papers_shares_hold_and_gaps_are_named(home: Settings) -> None:
    dg_home = home.dagster_home
    show_plan(home, Request(50 * MILLION), None, False, home.home / "plan.md")
    text = (home.home / "plan.md").read_text()
    assert dg_home.is_dir()
    assert "15,000,000" in text
    assert "The totals leave out what nobody has measured:" in text
    plan, stages = plan_of(home, Request(50 * MILLION))
    assert "raw_images" in plan.left_out["machine_hours"]
    assert stages["raw_images"]["machine_hours"] is None
    assert stages["raw_images"]["cost"] is None
    row = next(line for line in as_markdown(plan).splitlines() if line.startswith("| raw_images"))
    assert row.count("not measured") == 8
    with pytest.raises(PlanError, match="--yields measured"):
        plan_of(home, Request(MILLION, yields="measured"))


def test_json_has_the_same_numbers_and_null_for_what_is_not_known(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    show_plan(home, Request(MILLION, variants=1), None, True, None)
    record = json.loads(capsys.readouterr().out)
    stages = {stage["asset"]: stage for stage in record["stages"]}
    assert stages["raw_images"]["machine_hours"] is None
    assert stages["face_crops"]["gpu_hours"] > 0
    assert "flip_checkpoint × 1" in stages


def test_every_class_of_machine_has_a_price_and_a_number() -> None:
    for machine in (CPU, DOWNLOAD, ONE_A100, EIGHT_A100):
        assert {f"price.{machine.name}", f"machines.{machine.name}"} <= set(rates_of().by_name)


def test_a_setting_beats_the_bundled_price_and_a_file_beats_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACECAPTION_PLAN_PRICE_A100", "3.5")
    assert rates_of()["price.a100"] == 3.5
    own = tmp_path / "own.toml"
    own.write_text('currency = "EUR"\n[price]\na100 = 2\n')
    rates = rates_of(own)
    assert (rates["price.a100"], rates.currency) == (2.0, "EUR")
    assert rates.used()["price.a100"].origin == str(own)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[price]\na10 = 1", r"no rate 'price\.a10': did you mean price\.a100\?"),
        ("[price]\na100 = -1", r"price\.a100 is -1"),
        ("[price]\na100 = 'much'", r"price\.a100 is 'much'"),
        ("[machines]\na100 = 0", r"machines\.a100 is 0: .*whole number of at least 1"),
        ("[machines]\na100 = 0.5", r"machines\.a100 is 0\.5: .*whole number of at least 1"),
        ("[machines]\na100 = 2.5", r"machines\.a100 is 2\.5: .*whole number of at least 1"),
        ("[machines]\na100 = inf", r"machines\.a100 is inf: .*whole number of at least 1"),
        ("[shard]\nsize = 0", r"shard\.size is 0.*above 0"),
        ("[price", "cannot be read"),
    ],
)
def test_a_file_of_prices_with_a_mistake(tmp_path: Path, text: str, words: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(PlanError, match=rf"own\.toml: .*{words}"):
        rates_of(own)


@given(count=st.integers(1, 10**12))
def test_a_count_is_read_with_underscores_or_commas(count: int) -> None:
    assert read_count(f"{count:_}") == read_count(f"{count:,}") == read_count(str(count)) == count


@pytest.mark.parametrize("text", ["0", "-5", "many", "", "1.5", "1e6", "²"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(PlanError, match="--urls"):
        read_count(text)
