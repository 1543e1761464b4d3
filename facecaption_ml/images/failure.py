"""The one exception that ends a fetch; it carries the row's status and reason."""

from __future__ import annotations

from facecaption_ml.images.status import FetchStatus


class FetchFailure(Exception):  # noqa: N818
    """Why a URL brought no picture.

    ``transient`` failures are tried again within the run, after ``retry_after_s`` seconds where the server named a
    time. (``status.may_pass`` is about the next run.)
    """

    def __init__(
        self, status: FetchStatus, message: str, transient: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.transient = transient
        self.retry_after_s = retry_after_s
