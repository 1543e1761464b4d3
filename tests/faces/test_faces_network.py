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
from facecaption_ml.faces import fusion as fusion_module
from facecaption_ml.faces.fusion import Extent, FusedConv
from facecaption_ml.faces.network import FusedRetinaFace, LevelValues, facexlib_network
from facecaption_ml.faces.screening import LOGIT_MARGIN, Screen, Window, window_to_compute
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
    fused = FusedRetinaFace(model).eval()
    fused.pack(128, 128)
    return model, fused


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


def test_works_without_packed_convolutions(
    mobile: tuple[RetinaFace, FusedRetinaFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion_module, "_has_packed_convolution", lambda: False)
    plain = FusedRetinaFace(mobile[0]).eval()
    plain.pack(64, 64)
    assert not any(m.is_packed for m in plain.modules() if isinstance(m, FusedConv))
    assert_same_values(mobile[0], plain, 90, 130, 64)


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_resnet50_from_a_users_file(resnet_file: Path) -> None:
    model = facexlib_network(load_weights(resnet_file, "resnet50"), "resnet50")
    fused = FusedRetinaFace(model).eval()
    for height, width in ((64, 96), (70, 33)):
        assert_same_values(model, fused, height, width, 32)
    detector = FaceDetector.load(resnet_file, network="resnet50", working_size=64)
    assert len(detector.detect([np.zeros((50, 70, 3), dtype=np.uint8)])) == 1


# -- screening ------------------------------------------------------------------------------------------------------------


@given(
    length=st.integers(1, 90),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_windows_hold_all_that_a_core_depends_on(length: int, ends: tuple[float, float]) -> None:
    start, end = sorted(round(e * (length - 1)) for e in ends)
    core = Window(start, end + 1, 0, 1)
    window = window_to_compute(core, length, 1)
    assert 0 <= window.top <= max(0, core.top - 4)
    assert min(length, core.bottom + 4) <= window.bottom <= length
    size = window.bottom - window.top
    assert size == length or size % 16 == 0


@pytest.fixture(scope="module")
def screened(mobile: tuple[RetinaFace, FusedRetinaFace]) -> FusedRetinaFace:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # nor does the detector screen there
        pytest.skip("this processor cannot convolve in bfloat16")
    fused = FusedRetinaFace(mobile[0]).eval()
    fused.screen_finest_level(0.5)
    fused.pack(128, 128)
    return fused


@examples(8)
@given(
    height=st.integers(40, 200),
    width=st.integers(180, 200),
    corners=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_a_window_of_the_finest_level_is_that_part_of_the_whole(
    mobile: tuple[RetinaFace, FusedRetinaFace], height: int, width: int, corners: tuple[float, float, float, float]
) -> None:
    """Whatever part the screen lets through, its float32 values are those without a screen."""
    model, plain = mobile
    extent = Extent([(height, width)], (-(-height // 64) * 64, -(-width // 64) * 64))
    rows, columns = extent.cells(8)[0]
    top, bottom = sorted(round(c * (rows - 1)) for c in corners[:2])
    left, right = sorted(round(c * (columns - 1)) for c in corners[2:])
    core = Window(top, bottom + 1, left, right + 1)

    class Fixed(Screen):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def forward(self, features: Tensor, extent: Extent | None = None) -> Window | None:
            return core

    fixed = FusedRetinaFace(model).eval()
    fixed.screen = Fixed()
    x = torch.zeros(1, 3, *extent.padded)
    x[:, :, :height, :width] = torch.rand(1, 3, height, width) * 255 - 120
    with torch.inference_mode():
        part, whole = fixed(x, extent)[0], plain(x, extent)[0]
    assert (part.top, part.left) == (core.top, core.left)
    expected = whole.values[:, :, core.top : core.bottom, core.left : core.right]
    torch.testing.assert_close(part.values, expected, rtol=1e-4, atol=1e-4)


def test_the_screen_lets_every_passing_anchor_through(
    mobile: tuple[RetinaFace, FusedRetinaFace], screened: FusedRetinaFace, photo_pixels: dict[str, np.ndarray]
) -> None:
    import cv2

    dropped = 0
    for photo in photo_pixels.values():
        picture = torch.from_numpy(cv2.resize(photo, (320, 320)).astype(np.float32) - (123, 117, 104)).float()
        x = picture.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            whole, part = mobile[1](x)[0].values, screened(x)
        difference = torch.stack([whole[0, 1] - whole[0, 0], whole[0, 17] - whole[0, 16]]).amax(dim=0)
        if part[0].stride != 8:
            dropped += 1
            assert difference.max() < 0
            continue
        outside = torch.ones_like(difference, dtype=torch.bool)
        height, width = part[0].values.shape[2:]
        outside[part[0].top : part[0].top + height, part[0].left : part[0].left + width] = False
        if outside.any():
            # Half the margin is kept as the proof that no passing anchor came near to being missed.
            assert difference[outside].max() < -LOGIT_MARGIN / 2
    assert dropped > 0


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
