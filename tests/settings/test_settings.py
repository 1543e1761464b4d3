"""Profiles, environment and groups of the settings; docs/settings.md is what ``facecaption settings --markdown`` prints."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from facecaption_assets.commands.cli import main
from facecaption_assets.settings import PROFILES, SETTINGS, SettingsError, load_settings
from facecaption_assets.settings.naming import redact_addresses

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_papers_values_are_the_defaults() -> None:
    settings = load_settings(profile="production")
    assert (settings.crops.min_score, settings.crops.min_side, settings.attributes.threshold) == (0.98, 128, 0.85)
    assert settings.attributes.min_labels == 6
    assert settings.source.shards.shard_size == 10_000


def test_the_benchmarks_are_the_papers_unless_a_profile_says_otherwise() -> None:
    settings = load_settings(profile="production")
    for task, values in {
        "retrieval": (20, 4e-4, 256),
        "attributes": (100, 0.3, 256),
        "sketches": (100, 1e-6, 256),
    }.items():
        options = settings.benchmarks.probes(task)
        assert (options.epochs, options.learning_rate, options.batch_size) == values
    assert (settings.benchmarks.shared.weight_decay, settings.benchmarks.shared.views) == (0.05, 1)
    sample = load_settings(profile="sample")
    assert (sample.benchmarks.sketches.epochs, sample.benchmarks.sketches.learning_rate) == (20, 1e-3)


def test_environment_beats_profile_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(profile="sample").source.shards.shard_size == 220
    monkeypatch.setenv("FACECAPTION_SHARD_SIZE", "7")
    assert load_settings(profile="sample").source.shards.shard_size == 7
    monkeypatch.setenv("FACECAPTION_PROFILE", "photos")
    assert load_settings().attributes.weights == "bundled"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FACECAPTION_PROFILE", "laptop", r"FACECAPTION_PROFILE is 'laptop'.*production.*sample"),
        ("FACECAPTION_SHARD_SIZ", "3", "unknown setting FACECAPTION_SHARD_SIZ: did you mean FACECAPTION_SHARD_SIZE"),
        ("FACECAPTION_SHARD_SIZE", "many", "FACECAPTION_SHARD_SIZE is 'many'"),
        ("FACECAPTION_MIN_FACE_SCORE", "98", "FACECAPTION_MIN_FACE_SCORE is '98'"),
        ("FACECAPTION_NSFW_VALUES", "NSFW", "FACECAPTION_NSFW_VALUES is .*JSON list"),
        ("FACECAPTION_TEST_SHARE", "0.97", "nothing to train on"),
        ("FACECAPTION_S3_ENDPOINT", "s3.example.org", "FACECAPTION_S3_ENDPOINT.*https://"),
        ("FACECAPTION_BENCHMARK_RUNS", "0", "FACECAPTION_BENCHMARK_RUNS is '0'"),
        ("FACECAPTION_BENCHMARK_CELEB", "x", "did you mean FACECAPTION_BENCHMARK_CELEBA"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_paths_do_not_depend_on_the_folder_of_later_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.home == tmp_path / ".facecaption"
    assert settings.store_root == str(tmp_path / ".facecaption" / "store")


def test_an_endpoint_with_credentials_is_refused_without_showing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACECAPTION_S3_ENDPOINT", "https://me:very-secret@s3.example.org")
    with pytest.raises(SettingsError, match=r"FACECAPTION_S3_ENDPOINT.*FACECAPTION_S3_ACCESS_KEY_ID") as caught:
        load_settings()
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["http://me:very-secret@proxy.example", "socks5://me:very/secret@x@proxy.example:1"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("FACECAPTION_PROXY", proxy)
    with pytest.raises(SettingsError, match=r"^FACECAPTION_PROXY is …: .*http://host:port") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


def test_a_proxys_password_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACECAPTION_PROXY", "http://me:very-secret@proxy.example:3128")
    monkeypatch.setenv("FACECAPTION_NAMESERVERS", "9.9.9.9, [2620:fe::fe]:53")
    printed = CliRunner().invoke(main, ["settings"]).output
    assert "very-secret" not in printed + repr(load_settings())
    assert "FACECAPTION_PROXY=***" in printed
    assert load_settings().download.nameservers == ("9.9.9.9", "[2620:fe::fe]:53")


def test_keys_go_to_awss_own_variables_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FACECAPTION_S3_ACCESS_KEY_ID", "the-key")
    monkeypatch.setenv("FACECAPTION_S3_SECRET_ACCESS_KEY", "very-secret")
    settings = load_settings(s3_encryption="AES256", s3_endpoint="https://s3.example.org")
    try:
        assert os.environ["AWS_ACCESS_KEY_ID"] == "the-key"
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == "very-secret"
    finally:
        del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    assert settings.storage.options == {
        "aws_endpoint_url": "https://s3.example.org",
        "aws_server_side_encryption": "AES256",
    }
    assert "very-secret" not in f"{settings!r} {settings}"


def test_a_group_is_the_librarys_options_class() -> None:
    from facecaption_ml.images import DownloadPolicy

    assert isinstance(load_settings().download, DownloadPolicy)
    assert load_settings(profile="production", connections=3).download == DownloadPolicy(connections=3)


def test_every_setting_has_a_variable_of_its_own_and_a_description() -> None:
    variables = [setting.variable for setting in SETTINGS.values()]
    assert len(variables) == len(set(variables)) >= 170
    assert not [setting.variable for setting in SETTINGS.values() if not (setting.info.description or "").strip()]


def test_each_setting_reaches_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FLIP_EPOCHS": "3", "MIN_FACE_SIDE": "64", "LLM_TOP_P": "0.5", "PLAN_PRICE_CPU": "0.1"}.items():
        monkeypatch.setenv(f"FACECAPTION_{name}", value)
    settings = load_settings()
    assert (settings.flip.epochs, settings.crops.min_side) == (3, 64)
    assert (settings.llm.top_p, settings.plan.price_cpu) == (0.5, 0.1)


def test_profiles_name_settings_that_there_are() -> None:
    assert not {name for values in PROFILES.values() for name in values} - set(SETTINGS)
    for profile in PROFILES:
        load_settings(profile=profile)


def test_a_copy_with_other_values_leaves_the_rest(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    other = settings.replaced(executor="multiprocess", seed=7)
    assert (other.deploy.executor, other.seed, other.home) == ("multiprocess", 7, tmp_path)
    assert settings.deploy.executor == "in_process"
    with pytest.raises(KeyError):
        settings.replaced(no_such_setting=1)


def test_the_page_is_what_the_command_prints() -> None:
    result = CliRunner().invoke(main, ["settings", "--markdown"])
    assert result.exit_code == 0
    assert result.output == PAGE.read_text(encoding="utf-8"), "facecaption settings --markdown > docs/settings.md"


def test_every_setting_has_one_line() -> None:
    named = re.findall(r"^\| `(FACECAPTION_\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(setting.variable for setting in SETTINGS.values())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://me:pa$$@api.test/v1?key=abc#x", "https://***@api.test/v1?***"),
        ("https://token@api.test", "https://***@api.test"),
        ("http://me:p@ss@api.test:80/a", "http://***@api.test:80/a"),
        ("http://api.test:8000/v1", "http://api.test:8000/v1"),
        ("s3://bucket/a prefix/list.parquet", "s3://bucket/a prefix/list.parquet"),
        ("('https://a.test/?k=1', 'https://u:p@b.test/x')", "('https://a.test/?***', 'https://***@b.test/x')"),
        ("0.98", "0.98"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_addresses_are_shown_without_their_secrets(value: str, shown: str) -> None:
    assert redact_addresses(value) == shown
