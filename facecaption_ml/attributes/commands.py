"""The commands that made a checkpoint, for its model card: folders in them are named after the version of their weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from facecaption_ml.attributes.checkpoints import CONFIG, WEIGHTS
from facecaption_ml.attributes.network import Preset
from facecaption_ml.pretrained import weights_version

COMMANDS: Final = "commands"
_TRAINING: Final = "python -m facecaption_ml.attributes --data CELEBA"


def commands_of(config: Mapping[str, Any]) -> list[str]:
    """In order. Of a checkpoint of an earlier version, whose config has none: what its preset and seed tell."""
    known = config.get(COMMANDS)
    if known:
        return list(known)
    return [
        f"{_TRAINING} --preset {config['preset']['name']} --seed {config['seed']} --out {config.get('version', 'OUT')}"
    ]


def commands_before(source: Path | None) -> list[str]:
    """Those of the checkpoint that a training starts from or learns from; none of a file or of nothing."""
    if source is None or not (source / CONFIG).is_file():
        return []
    return commands_of(json.loads((source / CONFIG).read_text(encoding="utf-8")))


def training_command(preset: Preset, seed: int, out: str, options: Mapping[str, object]) -> str:
    """``options``: those that differ from what the command takes by itself; paths become versions, files their names."""
    given = {name: _named(value) for name, value in options.items()}
    usual = Preset.named(preset.name)
    if preset.mixup != usual.mixup:
        given["mixup"] = f"{preset.mixup:g}"
    text = "".join(f" --{name} {value}" for name, value in given.items())
    return f"{_TRAINING} --preset {preset.name} --seed {seed}{text} --out {out}"


def joining_command(one: Path, other: Path, out: str, one_view: bool = False) -> str:
    option = " --one-view" if one_view else ""
    return (
        f"python -m facecaption_ml.attributes.joining {_named(one)} {_named(other)} --data CELEBA{option} --out {out}"
    )


def _named(value: object) -> str:
    if not isinstance(value, Path):
        return str(value)
    return weights_version(value / WEIGHTS) if (value / WEIGHTS).is_file() else value.name


def merged(*parts: list[str]) -> list[str]:
    """The commands of several checkpoints, each command once, in order."""
    return list(dict.fromkeys(command for part in parts for command in part))
