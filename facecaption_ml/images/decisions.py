"""Which settings an outcome depends on, and whether it would be another one under those of today."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from facecaption_ml.decoding import ACCEPTED_FORMATS
from facecaption_ml.images.status import FetchStatus
from facecaption_ml.images.stored_objects import is_stored

if TYPE_CHECKING:
    from facecaption_ml.images.policy import DownloadContext, DownloadPolicy

_OF_PICTURES: Final = ("max_image_bytes", "max_image_pixels", "respect_opt_out", "allow_private_addresses")
_DECIDE: Final[Mapping[FetchStatus, tuple[str, ...]]] = {
    FetchStatus.ok: _OF_PICTURES,
    FetchStatus.duplicate_image: _OF_PICTURES,
    FetchStatus.invalid_url: ("allow_files_under", "open_object"),
    FetchStatus.opted_out: ("respect_opt_out", "user_agent_contact"),
    FetchStatus.refused_address: ("allow_private_addresses", "allow_files_under", "proxy", "nameservers"),
    FetchStatus.tls_error: ("proxy",),
    FetchStatus.protocol_error: ("proxy",),
    FetchStatus.http_client_error: ("user_agent_contact", "proxy"),
    FetchStatus.too_many_redirects: ("max_redirects", "user_agent_contact", "proxy"),
    FetchStatus.too_large: ("max_image_bytes",),
    FetchStatus.not_an_image: ("accepted_formats", "proxy"),
    FetchStatus.undecodable: ("accepted_formats",),
    FetchStatus.too_many_pixels: ("max_image_pixels",),
}
_OF_FILES: Final = ("allow_files_under", "open_object", "max_image_bytes", "max_image_pixels", "accepted_formats")
_NOT_OF_THE_WEB: Final = ("allow_files_under", "open_object")
_GONE: Final = ("HTTP 404", "HTTP 410")  # whoever asks
_OF_ROBOTS: Final = ("respect_opt_out", "proxy")  # where it was robots.txt that failed
_OF_REDIRECTS: Final = ("user_agent_contact", "proxy")  # that lead to what is no URL

_VALUES: Final[Mapping[str, Callable[[DownloadPolicy, DownloadContext], Any]]] = {
    "max_image_bytes": lambda policy, _: policy.max_image_bytes,
    "max_image_pixels": lambda policy, _: policy.max_image_pixels,
    "max_redirects": lambda policy, _: policy.max_redirects,
    "respect_opt_out": lambda policy, _: policy.respect_opt_out,
    "allow_private_addresses": lambda policy, _: policy.allow_private_addresses,
    "user_agent_contact": lambda policy, _: policy.user_agent_contact,
    "proxy": lambda policy, _: _digest(policy),
    "nameservers": lambda policy, _: ",".join(policy.nameservers),
    "accepted_formats": lambda *_: ",".join(ACCEPTED_FORMATS),
    "allow_files_under": lambda _, context: context.allow_files_under or "",
    "open_object": lambda _, context: context.open_object is not None,
}


def decided_by(
    status: FetchStatus, error: str | None, url: str | None, policy: DownloadPolicy, context: DownloadContext
) -> str | None:
    """The settings that a row with this end depends on, as ``name=value; …``; None where none has a say in it."""
    names = _DECIDE.get(status, ())
    if status is FetchStatus.http_client_error and error in _GONE:
        names = ()
    elif error and error.startswith("robots.txt: ") and not status.may_pass and status is not FetchStatus.opted_out:
        names = _OF_ROBOTS
    elif error and error.startswith("redirect: ") and status is FetchStatus.invalid_url:
        names = _OF_REDIRECTS
    names = tuple(name for name in names if (name in _OF_FILES if is_stored(url) else name not in _NOT_OF_THE_WEB))
    return "; ".join(f"{name}={_VALUES[name](policy, context)}" for name in names) or None


def may_be_stricter(kept: str | None, policy: DownloadPolicy) -> bool:
    """Whether a picture that was taken under the settings ``kept`` has to be asked for again before it may stay.

    So it is where opt-outs are honoured now and were not, or private addresses are refused now and were not. Of pictures
    from before settings were noted (None) nobody knows; they stay.
    """
    then = settings_in(kept)
    opt_outs = policy.respect_opt_out and then.get("respect_opt_out") == "False"
    addresses = not policy.allow_private_addresses and then.get("allow_private_addresses") == "True"
    return opt_outs or addresses


def settings_in(text: str | None) -> dict[str, str]:
    """Names and values of a text of ``decided_by``."""
    pairs = (part.partition("=") for part in (text or "").split("; "))
    return {name: value for name, equals, value in pairs if equals}


def _digest(policy: DownloadPolicy) -> str:
    """In place of the proxy, whose address may hold a password."""
    proxy = getattr(policy, "proxy", None)
    address = proxy.get_secret_value() if proxy is not None else ""
    return hashlib.sha256(address.encode()).hexdigest()[:12] if address else ""
