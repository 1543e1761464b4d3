"""The command line as a new user meets it: help, bad input, and one line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import assert_one_line, invoke, start
from facecaption_assets.commands.cli import main
from facecaption_assets.settings import load_settings

COMMANDS = (
    "demo", "run", "ui", "status", "caption", "search", "benchmark", "ablation", "materialize", "plan", "trace",
    "remove", "clean", "settings",
)  # fmt: skip


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help(tmp_path: Path, command: list[str]) -> None:
    done = invoke(*command, "--help", home=tmp_path)
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_no_command_is_left_out_above() -> None:
    assert set(main.commands) == set(COMMANDS)


def test_settings_are_listed_with_their_values(tmp_path: Path) -> None:
    done = invoke("settings", home=tmp_path, FACECAPTION_MIN_FACE_SIDE="64")
    assert "FACECAPTION_MIN_FACE_SIDE=64" in done.stdout
    assert "FACECAPTION_MIN_FACE_SCORE=0.98" in done.stdout


def test_an_unknown_profile(tmp_path: Path) -> None:
    assert_one_line(invoke("--profile", "laptop", "status", home=tmp_path), "FACECAPTION_PROFILE", "laptop", "sample")


def test_status_before_anything_has_run(tmp_path: Path) -> None:
    assert_one_line(invoke("status", home=tmp_path), "no shards", "source_manifest")


def test_a_missing_manifest(tmp_path: Path) -> None:
    done = start("--profile", "photos", "run", home=tmp_path, FACECAPTION_SOURCE="/absent/list.parquet")
    assert_one_line(done, "/absent/list.parquet", "no such file")


def test_no_source_at_all(tmp_path: Path) -> None:
    assert_one_line(invoke("--profile", "photos", "run", home=tmp_path), "FACECAPTION_SOURCE")


@pytest.mark.parametrize(
    ("store", "words"),
    [("s3://", "s3://bucket/prefix"), ("s3:/b/x", "is not supported"), ("gs://b/x", "gs:// is not supported")],
)
def test_a_store_without_a_bucket_or_of_another_kind_is_no_folder(tmp_path: Path, store: str, words: str) -> None:
    (tmp_path / "list.csv").write_text("URL\nhttp://a.test/1.jpg\n")
    source = {"FACECAPTION_SOURCE": str(tmp_path / "list.csv"), "FACECAPTION_STORE": store}
    done = invoke("--profile", "photos", "materialize", "source_manifest", home=tmp_path / "home", **source)
    assert_one_line(done, words)
    assert not [path for path in Path.cwd().iterdir() if path.name.endswith(":")]


def test_a_scheme_in_capitals_is_the_scheme() -> None:
    settings = load_settings(profile="photos", store="S3://bucket/x", source="S3://bucket/list.csv")
    assert (settings.store_root, settings.source.location) == ("s3://bucket/x", "s3://bucket/list.csv")


def test_a_home_in_which_no_database_can_lie(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("URL\nhttp://a.test/1.jpg\n")
    source = {"FACECAPTION_SOURCE": str(tmp_path / "list.csv")}
    done = invoke("--profile", "photos", "materialize", "source_manifest", home=tmp_path / "what?", **source)
    assert_one_line(done, "FACECAPTION_HOME", "what?", "'?'")


def test_no_url_column(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("link,words\nhttp://a.test/1.jpg,x\n")
    done = invoke("--profile", "photos", "run", home=tmp_path, FACECAPTION_SOURCE=str(tmp_path / "list.csv"))
    assert_one_line(done, "list.csv", "'URL'", "link, words", "FACECAPTION_URL_COLUMN")


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = invoke("--profile", "photos", "run", home=tmp_path, FACECAPTION_SOURCE=str(tmp_path / "empty"))
    assert_one_line(done, "empty", "no picture")
    assert_one_line(invoke("caption", tmp_path / "empty", home=tmp_path), "empty", "no picture")


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "list.csv").write_text("URL\nhttp://a.test/1.jpg\n")
    done = invoke(
        "--profile",
        "photos",
        "run",
        home=tmp_path,
        FACECAPTION_SOURCE=str(tmp_path / "list.csv"),
        FACECAPTION_STORE=str(tmp_path / "file" / "store"),
    )
    assert_one_line(done, "cannot write", "file/store", "FACECAPTION_STORE")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_one_line(invoke("run", home=tmp_path / "file"), "cannot write", "FACECAPTION_HOME")


def test_a_shard_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("URL\nhttp://a.test/1.jpg\n")
    done = invoke(
        "--profile",
        "photos",
        "run",
        "--first",
        "shard-00009",
        home=tmp_path,
        FACECAPTION_SOURCE=str(tmp_path / "list.csv"),
    )
    assert_one_line(done, "no shard 'shard-00009'", "shard-00000")


@pytest.mark.models
def test_detector_weights_that_do_not_fit(tmp_path: Path, photos: Path) -> None:
    import torch

    torch.save({"module.body.stage1.0.0.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    done = invoke("caption", photos / "obama.jpg", "--weights", tmp_path / "other.pth", home=tmp_path)
    assert_one_line(done, "other.pth")
    done = invoke("caption", photos / "obama.jpg", "--weights", tmp_path / "absent.pth", home=tmp_path)
    assert_one_line(done, "absent.pth")


@pytest.mark.models
def test_photographs_are_captioned_and_bad_ones_named(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    done = invoke(
        "caption", "--json", photos / "obama.jpg", tmp_path / "notes.jpg", tmp_path / "gone.jpg", home=tmp_path
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "notes.jpg" in done.stderr
    assert "gone.jpg" in done.stderr
    (line,) = done.stdout.strip().splitlines()
    photo = json.loads(line)
    assert photo["photo"].endswith("obama.jpg")
    (face,) = photo["faces"]
    assert set(face) == {"box", "score", "gender", "labels", "caption"}
    assert face["gender"] == "male"
    assert face["score"] > 0.9
    assert face["caption"].endswith(".")
    x0, y0, x1, y1 = face["box"]
    assert x0 < x1
    assert y0 < y1


@pytest.mark.models
def test_the_same_photograph_gets_the_same_captions(tmp_path: Path, photos: Path) -> None:
    first, second = (run("caption", "--json", photos / "two_people.jpg", home=tmp_path) for run in (start, invoke))
    assert first.stdout == second.stdout
    assert first.returncode == 0
    assert len(json.loads(first.stdout)["faces"]) == 2


def test_a_fault_of_the_program_says_so_and_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("five is not four")

    monkeypatch.setattr("facecaption_assets.commands.status.show_status", broken)
    done = invoke("status", home=tmp_path)
    assert_one_line(done, "internal error", "ValueError: five is not four", "facecaption_assets/commands/cli.py, line ")
    log = Path(done.stderr.strip().rpartition(" ")[2])
    assert "Traceback" in log.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="five is not four"):
        invoke("--debug", "status", home=tmp_path)


def test_a_store_without_a_bucket(tmp_path: Path) -> None:
    assert_one_line(invoke("status", home=tmp_path, FACECAPTION_STORE="s3://"), "s3://bucket/prefix")


def test_a_grammar_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    done = invoke("caption", tmp_path / "photo.jpg", home=tmp_path, FACECAPTION_GRAMMAR="absent.pcfg")
    assert_one_line(done, "FACECAPTION_GRAMMAR", "absent.pcfg")
