"""Alerts of failed runs: a real failed run, a real server on the loopback address, and no credential anywhere."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_assets.automation.alerts import failure_alert_sensor, known_secrets, redact
from facecaption_assets.settings import load_settings
from loopback import free_port, http_server

TOKEN = "T0KENinThePath"
RANGE = {"dagster/asset_partition_range_start": "shard-00003", "dagster/asset_partition_range_end": "shard-00007"}


class Webhook(BaseHTTPRequestHandler):
    """Answers every request with ``status``; what was posted is kept."""

    status = 200
    received: ClassVar[list[tuple[str, dict[str, Any]]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, json.loads(body)))
        self.send_response(self.status)
        if self.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST  # noqa: N815


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Webhook, "received", [], raising=False)
    with http_server(Webhook) as port:
        yield f"http://127.0.0.1:{port}/services/{TOKEN}"


def alert(message: str, **settings: object) -> dg.DagsterRun:
    """Let a run fail with ``message`` and the sensor see it."""

    @dg.op(name="face_crops")
    def failing() -> None:
        raise dg.Failure(message, allow_retries=False)

    @dg.job
    def shard_pipeline() -> None:
        failing()

    with dg.DagsterInstance.ephemeral() as instance:
        result = shard_pipeline.execute_in_process(instance=instance, raise_on_error=False, tags=RANGE)
        sensor = failure_alert_sensor(load_settings(profile="photos", **settings))
        context = dg.build_run_status_sensor_context(
            sensor_name="failure_alerts",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=result.get_run_failure_event(),
        ).for_run_failure()
        sensor(context)
        return result.dagster_run


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What the sensor has logged since the last call: what the UI shows under its tick, as it stands in the terminal."""

    def lines_of_the_sensor() -> str:
        lines = capsys.readouterr().err.splitlines()
        return "\n".join(line for line in lines if re.search(r" - dagster - (ERROR|WARNING) - [^-]*(run|alert) ", line))

    return lines_of_the_sensor


def test_a_failed_run_is_posted_and_logged_in_one_line(webhook: str, logged: Callable[[], str]) -> None:
    run = alert("the disk is full\nsecond line", alert_webhook=webhook, ui_url="https://dagster.example.org/")
    link = f"https://dagster.example.org/runs/{run.run_id}"
    ((path, posted),) = Webhook.received
    assert path == f"/services/{TOKEN}"
    assert posted == {
        "run_id": run.run_id,
        "job": "shard_pipeline",
        "step": "face_crops",
        "error": "the disk is full",
        "partitions": "shard-00003...shard-00007",
        "url": link,
    }
    (line,) = logged().splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d .* ERROR ", line), "time and level"
    assert line.endswith(
        f"run {run.run_id} of shard_pipeline failed: the disk is full "
        f"(step face_crops, partitions shard-00003...shard-00007, url {link})"
    )


@pytest.mark.parametrize("status", [500, 302])
def test_a_webhook_that_refuses_is_logged_and_the_sensor_goes_on(
    webhook: str, logged: Callable[[], str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(Webhook, "status", status)
    alert("the disk is full", alert_webhook=webhook)
    assert len(Webhook.received) == 1
    text = logged()
    assert f"it answered {status}" in text
    assert TOKEN not in text


def test_a_webhook_that_is_down_or_wrong_is_logged_and_the_sensor_goes_on(logged: Callable[[], str]) -> None:
    port = free_port()
    for url, words in (
        (f"http://127.0.0.1:{port}/{TOKEN}", "Connection refused"),
        (f"ftp://example.org/{TOKEN}", "no http:// or https:// address"),
        (f"http://[{TOKEN}", "ValueError"),
        (f"http://127.0.0.1:{port}x/{TOKEN}", "InvalidURL"),
        (f"http://127.0.0.1:{port}/a b{TOKEN}\n", "InvalidURL"),
    ):
        alert("the disk is full", alert_webhook=url)
        text = logged()
        assert words in text, url
        assert TOKEN not in text


def test_a_webhook_that_does_not_answer_costs_its_time_out_and_no_more(logged: Callable[[], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        alert("full", alert_webhook=f"http://127.0.0.1:{silent.getsockname()[1]}/{TOKEN}", alert_timeout_s=0.3)
    assert "did not take it: TimeoutError" in logged()


def test_without_a_webhook_there_is_the_line_of_the_log(logged: Callable[[], str]) -> None:
    alert("the disk is full")
    assert logged().count("the disk is full") == 1


def test_the_settings_keep_the_webhook_to_themselves() -> None:
    settings = load_settings(profile="photos", alert_webhook=f"https://example.org/{TOKEN}")
    assert TOKEN not in repr(settings)
    assert TOKEN not in str(settings.automation.alert_webhook)


@pytest.mark.parametrize(
    "text",
    [
        "GET https://user:hunter22@example.org/x failed",
        "GET s3://bucket/key?X-Amz-Signature=hunter22&b=1 failed",
        "Authorization: Bearer hunter22",
        'headers {"api_key": "hunter22", "a": 1}',
        "aws_secret_access_key=hunter22",
        "password: 'hunter22'",
        "AKIAHUNTER22HUNTER22 is not allowed",
        "hf_hunter22hunter22hunter22 is not allowed",
    ],
)
def test_what_looks_like_a_credential_is_left_out(text: str) -> None:
    found = redact(text, frozenset())
    assert "hunter22" not in found.lower()
    assert "[redacted]" in found


def test_ordinary_errors_stay_as_they_are() -> None:
    for text in (
        "1 shard(s) of raw_images failed: shard-00001; shard-00001: OSError: the disk is full",
        "source /data/a.csv: no column 'URL' for the URLs (it has a, b); name it with FACECAPTION_URL_COLUMN",
        "cannot reach s3://my-bucket/store (FACECAPTION_STORE, FACECAPTION_S3_ENDPOINT): Could not connect",
    ):
        assert redact(text, frozenset()) == text


# Letters of the mark that stands in for a secret may form a short secret anew, which would say nothing about a leak.
_OTHER_LETTERS = st.characters(exclude_characters="[redacted]")


@pytest.mark.slow
@given(st.text(_OTHER_LETTERS, min_size=6, max_size=40).filter(str.strip), st.text(), st.text())
def test_a_known_secret_never_comes_through(secret: str, before: str, after: str) -> None:
    found = redact(f"{before}{secret}{after}", frozenset({secret}))
    assert secret not in found
    assert "\n" not in found
    assert len(found) <= 500


def test_secrets_of_the_settings_and_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    monkeypatch.setenv("HF_TOKEN", "abc")  # too short to be cut out of ordinary words
    found = known_secrets(load_settings(profile="photos", llm_api_key="from-the-settings"))
    assert {"from-the-environment", "from-the-settings"} <= found
    assert "abc" not in found
