"""Fetching from loopback, with patience for tests."""

from __future__ import annotations

from facecaption_ml.images import DownloadContext, DownloadPolicy, fetch_raw_images
from hostile_site import manifest

Policy = tuple[DownloadPolicy, DownloadContext]


def local(**settings: object) -> Policy:
    """Private addresses allowed, no retries, short limits; other settings, also those of the context, as given."""
    defaults: dict = {
        "allow_private_addresses": True,
        "retries": 0,
        "read_timeout_s": 1.0,
        "total_timeout_s": 2.0,
        "connect_timeout_s": 1.0,
    }
    own = {name: settings.pop(name) for name in list(settings) if name in DownloadContext.__dataclass_fields__}
    return DownloadPolicy(**(defaults | settings)), DownloadContext(**own)


def fetch_one(url: str | None, policy: Policy) -> dict:
    """The row of raw_images of a shard of one URL."""
    table = fetch_raw_images(manifest([url]), *policy)
    assert table.height == 1
    row = table.row(0, named=True)
    assert (row["image"] is not None) == (row["status"] == "ok") == (row["error"] is None)
    return row
