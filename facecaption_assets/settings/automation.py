"""The settings of what runs by itself: the inbox of manifests, the nightly backfill, summaries, benchmarks, alerts."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class AutomationSettings(BaseModel):
    """What runs by itself, and when. Each sensor and schedule can be switched in the UI too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="sensors and schedules run without being switched on in the UI")
    timezone: str = Field("UTC", description="of every schedule, such as Europe/Berlin")

    manifest_inbox: str = Field("", description="folder or s3://bucket/prefix where manifests arrive; '': none do")
    manifest_attempts: int = Field(3, ge=1, description="runs that may fail on a manifest before it is left alone")

    nightly_cron: str = Field("0 1 * * *", description="when missing, failed and stale shards are built")
    nightly_shards: int = Field(500, ge=1, description="most shards that a night builds")
    nightly_attempts: int = Field(
        3, ge=1, description="failures within nightly_days after which a shard is quarantined"
    )
    nightly_days: int = Field(14, ge=1, description="days after which a failure of a shard is forgotten")

    summary_cron: str = Field(
        "0 6 * * *", description="when statistics and release follow the shards that have changed; '': never"
    )
    release_freshness_hours: float = Field(
        48.0, ge=0, description="age of facecaption_release and of the statistics that counts as too old; 0: none does"
    )
    shard_freshness_hours: float = Field(
        192.0, ge=0, description="age of the newest shard of an asset that counts as too old; 0: none does"
    )
    weekly_cron: str = Field("0 3 * * 6", description="when the benchmarks of trained variants are measured")

    alert_webhook: SecretStr = Field(SecretStr(""), description="address that gets a JSON object for each failed run")
    alert_timeout_s: float = Field(10.0, gt=0, description="of one request to the webhook")
    ui_url: str = Field("", description="address of the Dagster UI, for links in alerts")

    @field_validator("release_freshness_hours", "shard_freshness_hours")
    @classmethod
    def _at_least_a_minute(cls, value: float) -> float:
        if 0 < value < 1 / 60:
            raise ValueError("0, or at least a minute (0.017)")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("not a time zone such as UTC or Europe/Berlin") from None
        return value
