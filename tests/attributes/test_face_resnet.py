"""dlib's face network: what it computes, and what is said of a file that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from facecaption_ml.attributes import AttributeData, CheckpointError, train_attributes
from facecaption_ml.attributes.checkpoints import read_weights
from facecaption_ml.attributes.face_resnet import (
    FEATURES,
    MEAN,
    RANGE,
    SMALLEST_SIDE,
    FaceResnet,
    add_padded,
    load_trunk,
)

FILTERS = [32] * 3 + [64] * 4 + [128] * 3 + [256] * 4
HALVING = {3, 7, 10, 13}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the published one, with random numbers: of a size that keeps every block's output of the order of 1."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, value in FaceResnet().state_dict().items():
        spread = (2 / value[0].numel()) ** 0.5 * 0.7 if value.ndim > 1 else 0.1
        state[name] = (torch.randn(value.shape, generator=generator) * spread).half()
    state["embedding.weight"] = (torch.randn(128, 256, generator=generator) / 16).half()
    path = tmp_path_factory.mktemp("trunk") / "face_resnet.safetensors"
    save_file(state, path)
    return path


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """float64 [C, H, W] by the definition: every place's patch times every filter."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    side = weight.shape[2]
    height, width = (x.shape[1] - side) // stride + 1, (x.shape[2] - side) // stride + 1
    out = np.empty((len(weight), height, width))
    for top in range(height):
        for left in range(width):
            patch = x[:, top * stride : top * stride + side, left * stride : left * stride + side]
            out[:, top, left] = np.tensordot(weight, patch, 3) + bias
    return out


def pooled(x: np.ndarray, side: int, how: str) -> np.ndarray:
    height, width = (x.shape[1] - side) // 2 + 1, (x.shape[2] - side) // 2 + 1
    out = np.empty((len(x), height, width))
    for top in range(height):
        for left in range(width):
            patch = x[:, 2 * top : 2 * top + side, 2 * left : 2 * left + side]
            out[:, top, left] = getattr(patch, how)((1, 2))
    return out


def reference(picture: np.ndarray, file: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """The 128 numbers of a picture [H, W, 3], and what each block puts out, in float64."""
    w = {name: value.double().numpy() for name, value in load_file(file).items()}
    x = ((picture - np.array([122.782, 117.001, 104.298])) / 256).transpose(2, 0, 1)
    x = pooled(np.maximum(convolved(x, w["stem.weight"], w["stem.bias"], 2, 0), 0), 3, "max")
    outputs = []
    for i, filters in enumerate(FILTERS):
        stride = 2 if i in HALVING else 1
        name = f"blocks.{i}.conv"
        y = np.maximum(convolved(x, w[name + "1.weight"], w[name + "1.bias"], stride, 2 - stride), 0)
        y = convolved(y, w[name + "2.weight"], w[name + "2.bias"], 1, 1)
        shortcut = pooled(x, 2, "mean") if stride == 2 else x
        whole = np.zeros((filters, max(y.shape[1], shortcut.shape[1]), max(y.shape[2], shortcut.shape[2])))
        for part in (y, shortcut):
            whole[: part.shape[0], : part.shape[1], : part.shape[2]] += part
        x = np.maximum(whole, 0)
        outputs.append(x)
    return w["embedding.weight"] @ x.mean((1, 2)), outputs


def prepared(picture: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() - torch.tensor(MEAN)[:, None, None])[
        None
    ] / RANGE


@pytest.mark.parametrize("size", [(150, 150), (182, 132)])
def test_the_128_numbers_are_those_of_the_definition(size: tuple[int, int], weights: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.float64)
    trunk = FaceResnet().eval()
    embedding = load_trunk(trunk, weights)
    expected, outputs = reference(picture, weights)
    with torch.inference_mode():
        found = trunk.descriptor(prepared(picture), embedding)[0].numpy()
        features = trunk(prepared(picture))[0].numpy()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4 * np.abs(expected).max())
    assert features.shape == (FEATURES,) == (4288,)
    assert features[-256:] * 4 == pytest.approx(outputs[13].mean((1, 2)), rel=1e-3, abs=1e-4)
    assert features[:576].reshape(64, 9).mean() * 4 == pytest.approx(outputs[6].mean(), rel=0.2)


def test_the_smallest_picture_leaves_one_place_for_the_last_block() -> None:
    trunk = FaceResnet().eval()
    with torch.inference_mode():
        assert trunk(torch.zeros(1, 3, SMALLEST_SIDE, SMALLEST_SIDE)).shape == (1, FEATURES)
        with pytest.raises(ValueError, match="131 at least"):
            trunk(torch.zeros(1, 3, SMALLEST_SIDE - 1, SMALLEST_SIDE))


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


@given(SHAPES, SHAPES)
def test_what_is_smaller_is_filled_up_with_zeros(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    a, b = torch.rand(2, *one) + 1, torch.rand(2, *other) + 1
    total = add_padded(a, b)
    assert total.shape[1:] == tuple(map(max, one, other))
    for c in range(total.shape[1]):
        for y in range(total.shape[2]):
            for x in range(total.shape[3]):
                parts = [p[:, c, y, x] for p in (a, b) if c < p.shape[1] and y < p.shape[2] and x < p.shape[3]]
                assert torch.equal(total[:, c, y, x], sum(parts, torch.zeros(2)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("blocks.7.conv2.bias"), r"blocks\.7\.conv2\.bias is missing"),
        (
            lambda w: w.update({"stem.weight": w["stem.weight"][:, :, :5, :5].contiguous()}),
            r"stem\.weight is \[32, 3, 5, 5\]",
        ),
        (lambda w: w.update({"head.weight": torch.zeros(1)}), r"head\.weight is not a tensor of this network"),
        (lambda w: w["stem.bias"].fill_(float("nan")), r"stem\.bias has numbers that are not finite"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(change, words: str, weights: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    changed = load_file(weights)
    change(changed)
    save_file(changed, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=rf"face network .*other\.safetensors: {words}"):
        load_trunk(FaceResnet(), tmp_path / "other.safetensors")


def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: not a safetensors file"):
        load_trunk(FaceResnet(), tmp_path / "cut.safetensors")


@pytest.fixture(scope="module")
def data() -> AttributeData:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (8, 140, 132, 3)).astype(np.uint8)
    return AttributeData.from_arrays(pixels, random.random((8, 40)) < 0.4, "noise", 0.25, 0.25)


@pytest.mark.slow
def test_a_training_starts_from_the_file_and_leaves_the_first_blocks(
    data: AttributeData, weights: Path, tmp_path: Path
) -> None:
    train_attributes(data, "face_resnet", tmp_path, epochs=1, init=weights)
    published, trained = load_file(weights), read_weights(tmp_path / "attributes.safetensors")
    for name in ("stem.weight", "blocks.0.conv1.weight", "blocks.2.conv2.weight"):
        found, was = trained[f"trunk.{name}"], published[name].float()
        assert torch.allclose(found, was, atol=float(was.abs().max()) / 200), name
    moved = trained["trunk.blocks.3.conv1.bias"] - published["blocks.3.conv1.bias"].float()
    assert moved.abs().max() > 1e-5
    assert "face_resnet.safetensors" in (tmp_path / "config.json").read_text()


def test_another_preset_does_not_take_the_file(data: AttributeData, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"init .*face_resnet\.safetensors: .* fit the preset face_resnet only"):
        train_attributes(data, "micro", tmp_path, epochs=1, init=weights)


def test_a_file_that_is_not_there_is_named(data: AttributeData, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"init .*gone\.safetensors: there is no such file"):
        train_attributes(data, "face_resnet", tmp_path / "out", epochs=1, init=tmp_path / "gone.safetensors")
