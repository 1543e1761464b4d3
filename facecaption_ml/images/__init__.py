"""Fetching pictures: a shard of URLs to their bytes, with limits, crawl politeness and a status for every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facecaption_ml.images.status import FetchStatus, count_by_status, fetch_status, keeps_its_pictures, success_rate
from facecaption_ml.lazy import lazy_names

if TYPE_CHECKING:
    from facecaption_ml.images.download import fetch_raw_images, fetch_to_file, iter_fetched
    from facecaption_ml.images.earlier_rows import EarlierRows
    from facecaption_ml.images.policy import DownloadContext, DownloadPolicy

__all__ = [
    "DownloadContext",
    "DownloadPolicy",
    "EarlierRows",
    "FetchStatus",
    "count_by_status",
    "fetch_raw_images",
    "fetch_status",
    "fetch_to_file",
    "iter_fetched",
    "keeps_its_pictures",
    "success_rate",
]

__getattr__ = lazy_names(
    __name__,
    {
        "download": ("fetch_raw_images", "fetch_to_file", "iter_fetched"),
        "earlier_rows": ("EarlierRows",),
        "policy": ("DownloadContext", "DownloadPolicy"),
    },
)
