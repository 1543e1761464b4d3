"""Fetching pictures: a shard of URLs to their bytes, with limits, crawl politeness and a status for every row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facecaption_ml.images.status import FetchStatus, count_by_status, success_rate

if TYPE_CHECKING:
    from facecaption_ml.images.download import fetch_raw_images, iter_fetched
    from facecaption_ml.images.policy import DownloadContext, DownloadPolicy

__all__ = [
    "DownloadContext",
    "DownloadPolicy",
    "FetchStatus",
    "count_by_status",
    "fetch_raw_images",
    "iter_fetched",
    "success_rate",
]

_MODULE_OF = {
    "DownloadContext": "policy",
    "DownloadPolicy": "policy",
    "fetch_raw_images": "download",
    "iter_fetched": "download",
}


def __getattr__(name: str) -> Any:
    """Loads aiohttp and Pillow only when the downloader is asked for."""
    if name in _MODULE_OF:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
