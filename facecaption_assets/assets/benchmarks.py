"""The paper's benchmarks: one asset a task, a partition for each model and data set; and the tables of them all."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import dagster as dg

from facecaption_assets.checks import benchmarks as checks
from facecaption_assets.factories import previews
from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.machines.compute import CPU, ONE_A100
from facecaption_assets.partitions import BENCHMARK_ASSETS, BENCHMARK_GRIDS, all_of
from facecaption_assets.resources.benchmarks import measure, result_figures, write_measured
from facecaption_assets.settings import Settings
from facecaption_ml.columns import BENCHMARK_RESULT
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.store import Store, StoreError

if TYPE_CHECKING:
    from facecaption_ml.benchmarks.report.regression import Regressions
    from facecaption_ml.benchmarks.report.table import Table
    from facecaption_ml.benchmarks.result import BenchmarkResult
    from facecaption_ml.benchmarks.tasks.protocol import Measured

GROUP: Final = "benchmarks"
CODE_VERSION: Final = "1"
_DESCRIPTIONS: Final[Mapping[str, str]] = {
    "retrieval": "Text-image retrieval with frozen towers and two new linear layers (paper §5.2, Table 2).",
    "attributes": "40 facial attributes from a frozen image tower, with parts of the training data (paper §5.3, Table 3).",
    "sketches": "The photo of an unfinished drawing, asked for at every stage (paper §5.4, Table 4, Fig. 7 and 8).",
}
_READS: Final = (
    "benchmarks.folders", "benchmarks.baselines", "benchmarks.shared", "benchmarks.sample_pictures",
    "benchmarks.sample_drawings", "seed",
)  # fmt: skip
_HEADLINES: Final = 5  # numbers that stand before the table of all
_TABLES: Final = "benchmarks/tables"


def benchmark_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """A benchmark for each task, and ``benchmark_tables``."""
    return [*(_benchmark(task, settings) for task in BENCHMARK_ASSETS), _tables(settings)]


def _benchmark(task: str, settings: Settings) -> dg.AssetsDefinition:
    @configured_asset(
        settings,
        ONE_A100,
        team="models",
        code_version=CODE_VERSION,
        reads=(f"benchmarks.{task}", *_READS),
        checks=checks.RESULT,
        name=BENCHMARK_ASSETS[task],
        deps=[all_of("flip_checkpoint")],
        partitions_def=BENCHMARK_GRIDS[task],
        description=_DESCRIPTIONS[task],
        group_name=GROUP,
        table="benchmark_result",
        schema=BENCHMARK_RESULT,
        kinds={"pytorch"},
    )
    def benchmark(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        store: Store = context.resources.store.open()
        of = cast(dg.MultiPartitionKey, context.partition_key).keys_by_dimension
        started = time.monotonic()
        measured = measure(settings, store, task, of["data"], of["model"])
        return _recorded(store, measured, (time.monotonic() - started) / 60)

    return benchmark


def _recorded(store: Store, measured: "Measured", minutes: float) -> dg.MaterializeResult:
    """Write a result with its figures, and say in the UI what it came to."""
    result, written = measured.result, write_measured(store, measured)
    rest = f"{result.key}.json"
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": store.uri(f"{result.key}.json"),
            **{ending.split(".")[0]: previews.png(data, ending) for ending, data in measured.figures.items()},
            **dict(list(result.percentages.items())[:_HEADLINES]),
            "numbers": previews.rows(["of", "setting", "metric", "percent", "spread", "runs"], _rows(result), rest),
            **dict(list(result.percentages.items())[_HEADLINES:]),
            **result.counts,
            "protocol": previews.rows(["what", "how"], list(result.protocol.items()), rest),
            "versions": previews.rows(["of", "version"], list(result.versions.items()), rest),
            "notes": " · ".join(result.notes) or "none",
            "minutes": round(minutes, 2),
        },
        data_version=dg.DataVersion(_version(result)),
        check_results=[
            checks.above_baselines([result]).result(),
            checks.defined([result]).result(),
            checks.stored(store, written).result(),
        ],
    )


def _rows(result: "BenchmarkResult") -> list[tuple[Any, ...]]:
    from facecaption_ml.benchmarks.report.tables import percent

    named = {result.model: result.measurements, **result.baselines}
    return [
        (
            name,
            m.setting,
            m.metric,
            f"n/a: {m.why}" if m.value is None else percent(m.value),
            None if m.spread is None else percent(m.spread),
            m.runs,
        )
        for name, measurements in named.items()
        for m in measurements
    ]


def _version(result: "BenchmarkResult") -> str:
    from facecaption_ml.benchmarks.datasets.pictures import content_version

    return content_version([result.as_json().decode()])


def _tables(settings: Settings) -> dg.AssetsDefinition:
    @configured_asset(
        settings,
        CPU,
        team="models",
        code_version=CODE_VERSION,
        reads=("benchmarks.regression_tolerance",),
        checks=checks.TABLES,
        deps=[*BENCHMARK_ASSETS.values(), "flip_ablation"],
        group_name=GROUP,
        table="benchmark_result",
        schema=BENCHMARK_RESULT,
        kinds={"html"},
    )
    def benchmark_tables(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Tables 2, 3 and 4 and the ablation: measured rows beside the published ones, as HTML and Markdown.

        Every result in the store is shown, with the versions of data, code and checkpoint behind it, whatever its model is
        called. Numbers are compared with those of the last materialization.
        """
        return _write_tables(context.resources.store.open(), settings)

    return benchmark_tables


def _write_tables(store: Store, settings: Settings) -> dg.MaterializeResult:
    from facecaption_ml.benchmarks.report.ablation import SEED, read_ablation
    from facecaption_ml.benchmarks.report.regression import snapshot
    from facecaption_ml.benchmarks.report.table import markdown
    from facecaption_ml.benchmarks.result import read_results

    results, trained = read_results(store), read_ablation(store)
    if not results and not trained:
        raise StoreError(
            f"no benchmark has been measured yet: materialize {', '.join(BENCHMARK_ASSETS.values())} or flip_ablation first"
        )
    key, now = f"{_TABLES}/results.json", snapshot(results)
    compared = _compared(store, key, results, settings.benchmarks.regression_tolerance)
    tables = _tables_of(results, trained)
    files = table_files(store, results, trained)
    for name, data in files.items():
        store.write_bytes(f"{_TABLES}/{name}", data)
    store.write_bytes(key, now)
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": store.uri(_TABLES),
            "first number of each result": previews.rows(
                ["task", "data set", "model", "number", "percent"], _headlines(results), f"{_TABLES}/results.json"
            ),
            "results": len(results),
            "ablation trainings": len({(r.model, r.protocol[SEED]) for r in trained}),
            "page": dg.MetadataValue.path(store.uri(f"{_TABLES}/index.html")),
            **{table.title: dg.MetadataValue.md(markdown([table])) for table in tables},
        },
        check_results=[checks.no_regression(compared).result(), checks.stored(store, {key: now}).result()],
    )


def _headlines(results: "Sequence[BenchmarkResult]") -> list[tuple[str, str, str, str, str]]:
    """The first number of every result, as its task reports it."""
    from facecaption_ml.benchmarks.report.tables import percent

    firsts = [(result, result.measurements[0]) for result in results if result.measurements]
    return [
        (r.task, r.data, r.model, f"{m.setting} {m.metric}", "n/a" if m.value is None else percent(m.value))
        for r, m in firsts
    ]


def _tables_of(results: "Sequence[BenchmarkResult]", trained: "Sequence[BenchmarkResult]") -> "list[Table]":
    """What the UI shows: a table for each task and data set, the ablation, and what the numbers were made from."""
    from facecaption_ml.benchmarks.report.ablation import ablation_table
    from facecaption_ml.benchmarks.report.table import by_block
    from facecaption_ml.benchmarks.report.tables import benchmark_tables

    tables = [*benchmark_tables(results), *([ablation_table(trained)] if trained else [])]
    return [narrow for table in tables for narrow in by_block(table)]


def _compared(store: Store, key: str, results: "Sequence[BenchmarkResult]", tolerance: float) -> "Regressions | str":
    """With the last materialization's snapshot; a text where there is none that can be read."""
    from facecaption_ml.benchmarks.report.regression import from_snapshot, regressions

    if not store.exists(key):
        return "these are the first tables"
    try:
        before = from_snapshot(store.read_bytes(key))
    except FaceCaptionError as error:
        return f"{store.uri(key)}: {error}"
    return regressions(before, results, tolerance)


def table_files(
    store: Store, results: "Sequence[BenchmarkResult]", trained: "Sequence[BenchmarkResult]"
) -> dict[str, bytes]:
    """``index.html`` with the results' figures, ``tables.md``; ``ablation.md`` where there is one."""
    from facecaption_ml.benchmarks.report.ablation import ablation_table
    from facecaption_ml.benchmarks.report.page import html
    from facecaption_ml.benchmarks.report.table import markdown
    from facecaption_ml.benchmarks.report.tables import benchmark_tables

    ablation = [ablation_table(trained)] if trained else []
    tables = [*benchmark_tables(results), *ablation]
    figures = {
        f"{result.task}, {result.model} on {result.data}: {name}": store.read_bytes(key)
        for result in results
        for name, key in result_figures(store, result.key).items()
    }
    return {
        "index.html": html(tables, figures).encode(),
        "tables.md": markdown(tables).encode(),
        **({"ablation.md": markdown(ablation).encode()} if ablation else {}),
    }
