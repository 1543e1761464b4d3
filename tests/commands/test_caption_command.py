"""``facecaption caption``: the detector's settings count, and a reader that goes away is no error."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from command_line import REPOSITORY, clean_environment, command, invoke
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.portraits import draw_portrait


@pytest.fixture(scope="module")
def strip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 3200×400 px with four faces of some 130 px."""
    picture = np.full((400, 3200, 3), 130, dtype=np.uint8)
    for k in range(4):
        picture[60:316, 800 * k + 200 : 800 * k + 456] = draw_portrait(sample_labels(2 * k + 1), 2 * k + 1).image
    path = tmp_path_factory.mktemp("photos") / "strip.jpg"
    path.write_bytes(encode_jpeg(picture))
    return path


def test_caption_sees_what_the_detectors_settings_say(strip: Path, tmp_path: Path) -> None:
    found = {}
    for size in ("0", "160"):
        done = invoke("caption", "--json", strip, home=tmp_path, FACECAPTION_DETECTOR_WORKING_SIZE=size)
        found[size] = len(json.loads(done.stdout)["faces"])
    assert found == {"0": 4, "160": 0}


def test_weights_of_the_settings_and_those_of_the_option(strip: Path, tmp_path: Path) -> None:
    done = invoke("caption", strip, home=tmp_path, FACECAPTION_DETECTOR_WEIGHTS="absent.pth")
    assert done.returncode == 1
    assert "FACECAPTION_DETECTOR_WEIGHTS" in done.stderr
    assert "absent.pth" in done.stderr
    named = invoke("caption", "--weights", "bundled", strip, home=tmp_path, FACECAPTION_DETECTOR_WEIGHTS="absent.pth")
    assert named.returncode == 0


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    """`facecaption settings | head -0`: no error text, and the exit status that a shell gives a program ended by SIGPIPE."""
    process = subprocess.Popen(
        command("settings"),
        cwd=REPOSITORY,
        env=clean_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141
