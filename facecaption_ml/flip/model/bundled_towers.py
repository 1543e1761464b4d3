"""Image towers that come with the package: ViTs trained on labels, which FLIPs of few pairs start from.

Each is a folder ``flip/towers/NAME_PRESET`` as ``python -m facecaption_ml.labelled_tower`` writes it, with its card; and the
image tower of the bundled FLIP is called ``faces``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from facecaption_ml.flip.model.presets import FROM_SCRATCH
from facecaption_ml.pretrained import WeightsNotReachable, weights_version

TOWERS: Final = Path(__file__).parent.parent / "towers"
WEIGHTS: Final = "model.safetensors"
BUNDLED: Final = "bundled"
"""The name of the FLIP that comes along: of photographs, trained by ``python -m facecaption_ml.photo_flip``."""
FACES: Final = "faces"
"""The name of its image tower."""


def checkpoint_folder(name: str | Path) -> Path:
    """The folder of a FLIP checkpoint by its path, or of the bundled one by its name."""
    return TOWERS.parent / BUNDLED if str(name) == BUNDLED else Path(name).expanduser()


def own_folder(name: str) -> str:
    """The folder of the bundled FLIP by its name, and every other name as it is."""
    return str(checkpoint_folder(name)) if name == BUNDLED else name


def bundled_towers() -> dict[str, dict[str, Path]]:
    """The folders by name (``drawn``: of drawn portraits; ``faces``: of photographs), then by preset."""
    towers: dict[str, dict[str, Path]] = {}
    for folder in sorted(TOWERS.glob("*_*")):
        name, _, preset = folder.name.rpartition("_")
        towers.setdefault(name, {})[preset] = folder
    towers[FACES] = {"photos": checkpoint_folder(BUNDLED)}
    return towers


def located(name: str, preset: str) -> str:
    """The folder of the bundled tower ``name`` for a preset, and every other name as it is.

    Raises WeightsNotReachable where the name is that of a bundled tower, but for other presets.
    """
    of_presets = bundled_towers().get(name)
    if of_presets is None:
        return name
    if preset not in of_presets:
        raise WeightsNotReachable(
            f"the bundled tower {name!r} is for the preset {', '.join(of_presets)}, not for {preset}: give a folder of "
            f"save_pretrained, or {FROM_SCRATCH} for random weights"
        )
    return str(of_presets[preset])


def described(name: str, preset: str) -> str:
    """The name as a card has it: that of a bundled tower with the version of its weights."""
    folder = bundled_towers().get(name, {}).get(preset)
    return name if folder is None else f"the bundled {name}_{preset}, version {weights_version(folder / WEIGHTS)}"
