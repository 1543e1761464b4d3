"""Failed runs are said in one line of the sensor's log and, where there is a webhook, in one JSON object posted to it.

The line stands in the UI under the sensor's tick, and with time and level in the terminal.

Neither holds a credential: the settings' own secrets and the environment's are cut out, and so is what looks like one. The
webhook's address is one too, and is never said. A webhook that is down costs its alert, not the sensor.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from typing import Any, Final

import dagster as dg
from pydantic import SecretStr

from facecaption_assets.automation.jobs import sensor_status
from facecaption_assets.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from facecaption_assets.settings import SETTINGS, Settings

_REDACTED: Final = "[redacted]"
_MOST_CHARACTERS: Final = 500
_SHORTEST_SECRET: Final = 6  # a shorter one would cut ordinary words to pieces
_SECRET_NAMES: Final = re.compile(r"(?i)(secret|token|password|passwd|api_?key|access_?key|credential|webhook)")
_PATTERNS: Final = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',]+"), rf"\1 {_REDACTED}"),
    (re.compile(r"(?i)([a-z][a-z0-9+.-]*://)[^\s/@]+@"), rf"\1{_REDACTED}@"),
    (re.compile(r"(?i)([a-z][a-z0-9+.-]*://[^\s?#\"']*)\?[^\s\"']*"), rf"\1?{_REDACTED}"),
    (
        re.compile(
            r"(?i)([\w-]*(?:secret|token|passw(?:or)?d|api[_-]?key|access[_-]?key|signature)[\w-]*[\"']?\s*[=:]\s*)"
            r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&]+)"
        ),
        rf"\1{_REDACTED}",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), _REDACTED),
    (re.compile(r"\b(?:sk|hf|ghp|xox[a-z])[-_][A-Za-z0-9_-]{10,}"), _REDACTED),
)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An alert goes to the address it was meant for or nowhere."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def failure_alert_sensor(settings: Settings) -> dg.SensorDefinition:
    """``failure_alerts``: every failed run of this code location; on from the start where ``automation`` is set."""
    secrets = known_secrets(settings)

    @dg.run_failure_sensor(
        name="failure_alerts",
        default_status=sensor_status(settings),
        description="One line in the log, and a JSON object to FACECAPTION_ALERT_WEBHOOK, for each failed run.",
    )
    def failure_alerts(context: dg.RunFailureSensorContext) -> None:
        alert = describe_failure(context, settings.automation.ui_url, secrets)
        parts = [f"{name} {alert[name]}" for name in ("step", "partitions", "url") if alert[name]]
        context.log.error(
            "run %s of %s failed: %s (%s)", alert["run_id"], alert["job"], alert["error"], ", ".join(parts)
        )
        url = settings.automation.alert_webhook.get_secret_value()
        if url:
            trouble = post(url, alert, settings.automation.alert_timeout_s)
            if trouble:
                context.log.warning("alert of run %s: the webhook did not take it: %s", alert["run_id"], trouble)

    return failure_alerts


def describe_failure(context: dg.RunFailureSensorContext, ui_url: str, secrets: frozenset[str]) -> dict[str, str]:
    """``run_id, job, step, error, partitions, url``, all text, empty where there is nothing to say.

    ``error`` is the first line of the innermost error of the first failed step.
    """
    run = context.dagster_run
    failed = context.get_step_failure_events()
    message = context.failure_event.message or "the run failed"
    if failed:
        data = failed[0].step_failure_data
        described = data.user_failure_data.description if data.user_failure_data else None
        error = innermost_error(data.error)
        message = described or (error.message if error else message)
    first, last = (run.tags.get(tag, "") for tag in (RANGE_START_TAG, RANGE_END_TAG))
    partitions = first if first == last else f"{first}...{last}"
    return {
        "run_id": run.run_id,
        "job": run.job_name,
        "step": (failed[0].step_key or "") if failed else "",
        "error": redact(message, secrets),
        "partitions": partitions or run.tags.get(PARTITION_TAG, ""),
        "url": f"{ui_url.rstrip('/')}/runs/{run.run_id}" if ui_url else "",
    }


def innermost_error(error: Any) -> Any:
    """Of a failed step's error (its class name, message and cause): Dagster's wrappers say less than what they wrap."""
    while error and error.cause and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    return error


def known_secrets(settings: Settings) -> frozenset[str]:
    """The values of secret settings, and of environment variables whose names speak of a secret."""
    values = (setting.value(settings) for setting in SETTINGS.values())
    own = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    around = [value for name, value in os.environ.items() if _SECRET_NAMES.search(name)]
    return frozenset(value for value in (*own, *around) if len(value) >= _SHORTEST_SECRET)


def redact(text: str, secrets: frozenset[str]) -> str:
    """The first line of ``text`` that is not blank, at most 500 characters, without ``secrets`` and what looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _REDACTED)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    for pattern, instead in _PATTERNS:
        line = pattern.sub(instead, line)
    return line[:_MOST_CHARACTERS]


def post(url: str, payload: dict[str, str], timeout_s: float) -> str | None:
    """Post ``payload`` as JSON. What went wrong in words that do not hold the address, or None."""
    if not url.lower().startswith(("https://", "http://")):
        return "FACECAPTION_ALERT_WEBHOOK is no http:// or https:// address"
    try:
        body = json.dumps(payload).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout_s):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered {error.code}"
    except urllib.error.URLError as error:
        reason = error.reason
        return (reason.strerror if isinstance(reason, OSError) else None) or f"{type(reason).__name__}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return type(error).__name__  # its words may hold the address
