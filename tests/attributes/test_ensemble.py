"""Two networks as one checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from coloured_noise import pictures
from facecaption_ml.attributes import AttributeData, AttributePredictor, CheckpointError, train_attributes
from facecaption_ml.attributes.checkpoints import write_weights
from facecaption_ml.attributes.ensemble import Ensemble, Member, network_of, resized
from facecaption_ml.attributes.joining import best_share, join
from facecaption_ml.attributes.network import AttributeNetwork, Preset, fold_norms


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    data = AttributeData.from_arrays(*pictures(120), "colours")
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    for seed, folder in enumerate(folders):
        train_attributes(data, "micro", folder, epochs=1, seed=seed)
    return folders


@pytest.mark.slow
def test_the_logits_are_the_weighted_mean(two: tuple[Path, Path], tmp_path: Path) -> None:
    config = join(*two, tmp_path, 0.7)
    temperatures = json.loads((two[0] / "config.json").read_text())["temperatures"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "temperatures": temperatures}))
    for name in ("evaluation.json", "MODEL_CARD.md"):
        (tmp_path / name).write_bytes((two[0] / name).read_bytes())
    crops = np.stack(pictures(6)[0])
    predictors = [AttributePredictor.load(folder) for folder in (*two, tmp_path)]
    pixels = resized(torch.from_numpy(crops).permute(0, 3, 1, 2).float(), predictors[0].input)
    small = pixels.permute(0, 2, 3, 1).round().byte().numpy()
    one, other, joint = (predictor.logits(small) for predictor in predictors)
    assert joint == pytest.approx(0.7 * one + 0.3 * other, abs=0.1)  # eight bits a weight
    assert np.abs(joint - one).max() > np.abs(joint - 0.7 * one - 0.3 * other).max()


def test_each_network_sees_its_own_size() -> None:
    presets = [Preset.named("micro"), Preset.named("tiny")]
    seen: list[tuple[int, ...]] = []
    ensemble = Ensemble([Member(preset, 0.5) for preset in presets]).eval()
    for network in ensemble.networks:
        network.trunk.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    with torch.inference_mode():
        assert ensemble.views(torch.zeros(2, 3, 182, 132)).shape == (2, 40)
    assert set(seen) == {preset.input for preset in presets}


def test_the_share_that_costs_least_is_found() -> None:
    random = np.random.default_rng(0)
    truth = random.random((400, 40)) < 0.4
    good = np.where(truth, 2.0, -2.0) + random.normal(0, 1, truth.shape)
    assert best_share(good, random.normal(0, 1, truth.shape), truth) == 0.7
    assert best_share(random.normal(0, 1, truth.shape), good, truth) == 0.3
    assert 0.3 < best_share(good, np.where(truth, 2.0, -2.0) + random.normal(0, 1, truth.shape), truth) < 0.7


def test_an_ensemble_of_ensembles_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    config = join(*two, tmp_path, 0.5)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="is an ensemble already"):
        join(tmp_path, two[0], tmp_path / "out", 0.5)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        join(two[0], tmp_path / "nothing", tmp_path / "out", 0.5)


@pytest.mark.parametrize("preset", ["tiny", "micro"])
def test_folding_norms_changes_no_answer(preset: str) -> None:
    torch.manual_seed(0)
    network = AttributeNetwork(Preset.named(preset))
    pixels = torch.rand(16, 3, *Preset.named(preset).input) * 255
    network.train()
    with torch.no_grad():
        for _ in range(3):  # norms that have seen something
            network(network.normalised(pixels))
        network.eval()
        before = network.views(pixels)
        fold_norms(network)
        after = network.views(pixels)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    assert torch.allclose(before, after, atol=1e-4)


def test_a_checkpoint_of_one_network_is_read_as_before() -> None:
    network = network_of({"preset": {**vars(Preset.named("micro"))}})
    assert isinstance(network, AttributeNetwork)


@pytest.mark.slow
def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    write_weights(tmp_path / "attributes.safetensors", {})
    command = [sys.executable, "-m", "facecaption_ml.attributes.joining", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        [*command, "--data", str(tmp_path), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "config.json is missing" in done.stderr
