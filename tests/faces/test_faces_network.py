"""The fused network against facexlib's, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facexlib.detection.retinaface import RetinaFace
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from examples import examples
from facecaption_ml.faces import FaceDetector, load_weights
from facecaption_ml.faces.fusion import Extent, FusedConv
from facecaption_ml.faces.network import FusedRetinaFace, LevelValues, facexlib_network
from facecaption_ml.faces.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")


def facexlib_output(model: RetinaFace, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Box offsets, class logits and landmark offsets of every anchor, [B, anchors, 4 | 2 | 10]."""
    model.phase = "train"  # leaves the softmax out
    with torch.inference_mode():
        return model(rgb.flip(1).contiguous())


def fused_output(levels: list[LevelValues], extent: Extent) -> tuple[Tensor, Tensor, Tensor]:
    """The same from the fused network's levels, of the part that is picture."""
    parts = []
    for level in levels:
        rows, columns = extent.cells(level.stride)[0]
        inside = level.values[:, :, :rows, :columns].permute(0, 2, 3, 1)
        parts.append(inside.reshape(inside.shape[0], -1, 16))
    values = torch.cat(parts, dim=1)
    return values[..., 2:6], values[..., :2], values[..., 6:]


def assert_same_values(model: RetinaFace, fused: FusedRetinaFace, height: int, width: int, padded: int) -> None:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    picture = torch.rand(1, 3, height, width, generator=generator) * 255 - 120
    extent = Extent([(height, width)], tuple(-(-side // padded) * padded for side in (height, width)))
    canvas = torch.zeros(1, 3, *extent.padded)
    canvas[:, :, :height, :width] = picture
    with torch.inference_mode():
        ours = fused_output(fused(canvas.contiguous(memory_format=torch.channels_last), extent), extent)
    for mine, theirs in zip(ours, facexlib_output(model, picture), strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.fixture(scope="module")
def mobile() -> tuple[RetinaFace, FusedRetinaFace]:
    model = facexlib_network(load_weights(), "mobile0.25")
    return model, FusedRetinaFace(model).eval()


@examples(8)
@given(height=st.integers(1, 150), width=st.integers(1, 150), padded=st.sampled_from([32, 64, 96]))
def test_padding_is_invisible(mobile: tuple[RetinaFace, FusedRetinaFace], height: int, width: int, padded: int) -> None:
    assert_same_values(*mobile, height, width, padded)


def test_pictures_of_a_batch_do_not_see_each_other(mobile: tuple[RetinaFace, FusedRetinaFace]) -> None:
    _, fused = mobile
    sizes = [(128, 128), (100, 70), (65, 128), (128, 97)]
    pictures = torch.zeros(4, 3, 128, 128)
    for i, (height, width) in enumerate(sizes):
        pictures[i, :, :height, :width] = torch.rand(3, height, width) * 255 - 120
    with torch.inference_mode():
        together = fused(pictures.contiguous(memory_format=torch.channels_last), Extent(sizes, (128, 128)))
        for i, size in enumerate(sizes):
            alone = fused(pictures[i : i + 1], Extent([size], (128, 128)))
            for a, b in zip(together, alone, strict=True):
                rows, columns = Extent([size], (128, 128)).cells(a.stride)[0]
                torch.testing.assert_close(
                    a.values[i, :, :rows, :columns], b.values[0, :, :rows, :columns], rtol=1e-4, atol=1e-4
                )


def test_fewer_convolutions(mobile: tuple[RetinaFace, FusedRetinaFace]) -> None:
    model, fused = mobile
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == 56
    assert sum(isinstance(m, FusedConv) for m in fused.modules()) == 44  # two fewer per context, two per head


def random_resnet() -> RetinaFace:
    """facexlib's larger network with random weights whose batch norms do something and keep values in range."""
    torch.manual_seed(11)
    model = RetinaFace(network_name="resnet50", device="cpu")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
            torch.nn.init.uniform_(module.weight, 0.3, 0.6)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save({f"module.{name}": tensor for name, tensor in random_resnet().state_dict().items()}, path)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_resnet50_from_a_users_file(resnet_file: Path) -> None:
    model = facexlib_network(load_weights(resnet_file, "resnet50"), "resnet50")
    fused = FusedRetinaFace(model).eval()
    for height, width in ((64, 96), (70, 33)):
        assert_same_values(model, fused, height, width, 32)
    detector = FaceDetector.load(resnet_file, network="resnet50", working_size=64)
    assert len(detector.detect([np.zeros((50, 70, 3), dtype=np.uint8)])) == 1


def test_state_of_another_network_is_refused(resnet_file: Path) -> None:
    from facecaption_ml.faces import WeightsError

    with pytest.raises(
        WeightsError, match=r"resnet50\.pth does not fit mobile0\.25: it has no 'body\.stage1\.0\.0\.weight'"
    ):
        FaceDetector.load(resnet_file)
    weights = load_weights()
    state = dict(weights.state)
    state["ssh1.conv3X3.0.weight"] = torch.zeros(3, 3)
    with pytest.raises(WeightsError, match=r"'ssh1\.conv3X3\.0\.weight' is \[3, 3\], not \[32, 64, 3, 3\]"):
        facexlib_network(Weights(state, "somewhere", "0"), "mobile0.25")
    with pytest.raises(WeightsError, match="'extra' is not of this network"):
        facexlib_network(Weights({**weights.state, "extra": torch.zeros(1)}, "somewhere", "0"), "mobile0.25")
