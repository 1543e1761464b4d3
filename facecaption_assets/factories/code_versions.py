"""The code version of an asset: its own number, and a digest of the settings and files that its result depends on.

An asset names what it reads; a setting that is changed then changes the code version of exactly the assets that read it,
and Dagster shows as stale what was made before. What decides only how, where or how fast something is made is not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from facecaption_assets.factories.file_digests import digests_of
from facecaption_assets.settings import SETTINGS, Settings
from facecaption_assets.settings.naming import Setting
from facecaption_ml.flip.training.options import RUNTIME_ONLY

_DIGITS: Final = 6
OPERATIONAL: Final = (
    "home", "device", "threads", "storage", "automation", "deploy", "plan", "source.shards_per_run",
    # How patiently and how fast: a failure that another try would not have is tried again anyway.
    "download.connections", "download.connections_per_host", "download.connect_timeout_s", "download.read_timeout_s",
    "download.total_timeout_s", "download.retries", "download.backoff_s", "download.proxy", "download.nameservers",
    # `facecaption remove` names the shards that hold what these lists name; all others stay as they are.
    "source.deny_list", "release.removal_list",
    "detector.batch_size", "benchmarks.encode_batch",
    "llm.endpoint", "llm.api_key", "llm.batch_size", "llm.concurrency", "llm.timeout_s",
    "llm.client_errors", "llm.price_prompt", "llm.price_completion",
    "llm.vllm.requests_at_once", "llm.vllm.max_num_seqs", "llm.vllm.max_num_batched_tokens", "llm.vllm.gpu_memory_utilization",
    "llm.vllm.max_model_len", "llm.vllm.tensor_parallel_size", "llm.vllm.enable_prefix_caching",
    "llm.acceptance_floor",  # of a check that warns
)  # fmt: skip
"""Settings and groups of them that change no result."""


def _within(path: str, names: Collection[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


def is_operational(setting: Setting) -> bool:
    """Whether a setting changes no result, whoever reads it."""
    return _within(".".join(setting.path), OPERATIONAL) or setting.info.json_schema_extra == RUNTIME_ONLY


def settings_read(settings: Settings, reads: Collection[str]) -> Iterator[Setting]:
    """The settings that ``reads`` names, such as ``attributes.threshold``, and those of the groups it names (``crops``).

    Of a group without those that change nothing under the others: it may have a property ``idle`` that names them.
    """
    known = {".".join(setting.path): setting for setting in SETTINGS.values()}
    for name in reads:
        assert any(_within(path, [name]) for path in known), f"there is no setting or group {name!r}"
    for path, setting in known.items():
        of_a_group = _within(path, reads) and not is_operational(setting) and not _is_idle(settings, setting)
        if path in reads or of_a_group:
            yield setting


def _is_idle(settings: Settings, setting: Setting) -> bool:
    *groups, name = setting.path
    group: Any = settings
    for part in groups:
        group = getattr(group, part)
    return name in getattr(group, "idle", ())


def code_version(settings: Settings, number: str, reads: Collection[str], files: Collection[Path] = ()) -> str:
    """``number`` and six digits of everything read, such as ``1.3fa94c``; ``number`` alone for an asset that reads nothing.

    ``files`` are read whatever the settings say. A file counts by its content, not by where it lies; one that is absent
    counts as missing.
    """
    parts = [f"{setting.name}={_fingerprint(setting, settings)}" for setting in settings_read(settings, reads)]
    parts += [f"{file.name}={','.join(digests_of('', file))}" for file in sorted(files)]
    if not parts:
        return number
    return f"{number}.{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:_DIGITS]}"


def _fingerprint(setting: Setting, settings: Settings) -> str:
    value = setting.value(settings)
    found = digests_of(".".join(setting.path), value)
    return ",".join(found) if found else json.dumps(value, default=str, sort_keys=True)


def shown_settings(settings: Settings, reads: Collection[str]) -> dict[str, str]:
    """What is read, by the variables' names; of files also the first digits of their content."""
    shown = {}
    for setting in settings_read(settings, reads):
        value: Any = setting.value(settings)
        text = _as_text(value)
        found = digests_of(".".join(setting.path), value)
        digest = hashlib.sha256("".join(found).encode()).hexdigest()[:_DIGITS] if len(found) > 1 else "".join(found)
        shown[setting.variable] = f"{text or 'not set'}" + (f" ({digest[:12]})" if found else "")
    return shown


def _as_text(value: Any) -> str:
    """A value as one would write it into the environment; '' for one that says nothing."""
    if isinstance(value, Mapping):
        texts = {name: json.dumps(part) if isinstance(part, dict | list) else part for name, part in value.items()}
        return ",".join(f"{name}={text}" for name, text in texts.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def settings_line(settings: Settings, reads: Collection[str]) -> str:
    """What is read, in one line: ``ATTRIBUTE_THRESHOLD 0.85 · MIN_LABELS 6``."""
    shown = shown_settings(settings, reads)
    return " · ".join(f"{name.removeprefix('FACECAPTION_')} {value}" for name, value in shown.items()) or "none"
