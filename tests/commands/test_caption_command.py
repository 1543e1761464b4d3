"""``facecaption caption``: the detector's settings count, and a reader that goes away is no error."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from command_line import REPOSITORY, assert_one_line, clean_environment, command, invoke
from facecaption_ml.captions import CaptionGrammar, face_caption, find_attributes
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.portraits import draw_portrait
from facecaption_ml.taxonomy import FEMALE


@pytest.fixture(scope="module")
def strip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 3200×400 px with four faces of some 130 px."""
    picture = np.full((400, 3200, 3), 130, dtype=np.uint8)
    for k in range(4):
        picture[60:316, 800 * k + 200 : 800 * k + 456] = draw_portrait(sample_labels(2 * k + 1), 2 * k + 1).image
    path = tmp_path_factory.mktemp("photos") / "strip.jpg"
    path.write_bytes(encode_jpeg(picture))
    return path


@pytest.mark.slow
def test_caption_sees_what_the_detectors_settings_say(strip: Path, tmp_path: Path) -> None:
    found = {}
    for size in ("0", "160"):
        done = invoke("caption", "--json", strip, home=tmp_path, FACECAPTION_DETECTOR_WORKING_SIZE=size)
        found[size] = len(json.loads(done.stdout)["faces"])
    assert found == {"0": 4, "160": 0}


@pytest.mark.slow
def test_weights_of_the_settings_and_those_of_the_option(strip: Path, tmp_path: Path) -> None:
    done = invoke("caption", strip, home=tmp_path, FACECAPTION_DETECTOR_WEIGHTS="absent.pth")
    assert done.returncode == 1
    assert "FACECAPTION_DETECTOR_WEIGHTS" in done.stderr
    assert "absent.pth" in done.stderr
    named = invoke("caption", "--weights", "bundled", strip, home=tmp_path, FACECAPTION_DETECTOR_WEIGHTS="absent.pth")
    assert named.returncode == 0


@pytest.mark.slow
def test_the_predictor_of_the_settings_and_that_of_the_option(strip: Path, tmp_path: Path) -> None:
    done = invoke("caption", strip, home=tmp_path, FACECAPTION_ATTRIBUTE_WEIGHTS="absent")
    assert_one_line(done, "FACECAPTION_ATTRIBUTE_WEIGHTS", "absent", "attributes.safetensors is missing")
    named = invoke("caption", "--attributes", "bundled", strip, home=tmp_path, FACECAPTION_ATTRIBUTE_WEIGHTS="absent")
    assert named.returncode == 0
    wrong = invoke("caption", "--attributes", "absent", strip, home=tmp_path)
    assert_one_line(wrong, "--attributes", "absent", "attributes.safetensors is missing")


@pytest.mark.slow
def test_a_folder_is_read_as_a_source_reads_it(strip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("a.jpg", ".hidden.jpg", ".thumbnails/b.jpg", "@eaDir/c.jpg", "sub/_MG_1.JPG", "d.jpg.part"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(strip.read_bytes())
    done = invoke("caption", "--json", folder, home=tmp_path)
    seen = [Path(json.loads(line)["photo"]).relative_to(folder).as_posix() for line in done.stdout.splitlines()]
    assert seen == ["a.jpg", "sub/_MG_1.JPG"]
    done = invoke("caption", folder / ".thumbnails", home=tmp_path)  # named, it is what is asked for
    assert done.returncode == 0
    (folder / "a.jpg").unlink()
    (folder / "sub" / "_MG_1.JPG").unlink()
    done = invoke("caption", folder, home=tmp_path)
    assert_one_line(done, str(folder), "no pictures in this folder", "passed over: 2 hidden, 1 system folder")


@pytest.mark.slow
def test_a_face_is_worded_as_in_the_data_set_and_says_no_label_that_is_kept_out(strip: Path, tmp_path: Path) -> None:
    def faces(**environment: str) -> list[dict]:
        return json.loads(invoke("caption", "--json", strip, home=tmp_path, **environment).stdout)["faces"]

    photo = hashlib.sha256(strip.read_bytes()).hexdigest()[:16]
    grammar, plain = CaptionGrammar.load(), faces()
    for k, face in enumerate(plain):
        assert face["caption"] == face_caption(grammar, f"{photo}_{k}", face["labels"], face["gender"], 0)
    hidden = Counter(label for face in plain for label in face["labels"] if label != "Male").most_common(1)[0][0]
    for before, face in zip(plain, faces(FACECAPTION_CAPTION_EXCLUDE=f"{hidden},Male"), strict=True):
        assert (face["labels"], face["gender"]) == (before["labels"], before["gender"])
        assert not {hidden, "Male", FEMALE} & set(find_attributes(face["caption"])[0])


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
