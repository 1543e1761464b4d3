"""What a training starts from: a checkpoint of its preset, or the published weights of its trunk."""

from __future__ import annotations

import json
from pathlib import Path

from facecaption_ml.attributes.checkpoints import CONFIG, WEIGHTS, CheckpointError, read_weights, starting_point
from facecaption_ml.attributes.ensemble import MEMBERS
from facecaption_ml.attributes.face_resnet import FaceResnet, load_trunk
from facecaption_ml.attributes.network import AttributeNetwork
from facecaption_ml.pretrained import weights_version


def start_from(network: AttributeNetwork, source: Path) -> tuple[str, bool]:
    """Give ``network`` the weights of a checkpoint folder, or its trunk those of a ``face_resnet.safetensors``.

    Returns the version of these weights, and whether they are a whole network's: these need a lower rate. Raises
    CheckpointError where there are none, or those of a network of another shape.
    """
    if source.suffix == ".safetensors" and source.name != WEIGHTS:
        starting_point(source)
        if not isinstance(network.trunk, FaceResnet):
            raise CheckpointError(f"init {source}: a face network's weights fit the preset face_resnet only")
        load_trunk(network.trunk, source)
        return weights_version(source), False
    folder = source.parent if source.suffix == ".safetensors" else source
    _load_checkpoint(network, folder)
    return weights_version(folder / WEIGHTS), True


def _load_checkpoint(network: AttributeNetwork, folder: Path) -> None:
    from safetensors import SafetensorError

    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise CheckpointError(f"init {folder}: {name} is missing there")
    preset = "unknown"
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        preset = config["preset"]["name"]
        if MEMBERS in config:
            raise CheckpointError(f"init {folder}: is an ensemble; name one of the networks that it was made of")
        network.load_state_dict(read_weights(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())[:120]
        raise CheckpointError(f"init {folder}: does not fit, its preset is {preset!r}: {line}") from None
