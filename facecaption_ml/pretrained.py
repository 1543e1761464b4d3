"""Pretrained weights of the Hugging Face hub or a local folder, or one line saying what to give instead."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from facecaption_ml.errors import FaceCaptionError, first_line

T = TypeVar("T")

_HUB_SECONDS: Final = 10.0
"""How long the hub may take to say whether it has a model; transformers' own retries take 23 s without a network."""
WEIGHTS_FILES: Final = (".safetensors", ".pth", ".pt", ".bin")
"""How the names of single files of weights end."""
_HUB_NAME: Final = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class WeightsNotReachable(FaceCaptionError):  # noqa: N818
    """No usable weights under this name; the message is one line that says what to give instead."""


def weights_version(path: Path) -> str:
    """The first 12 hex digits of a weights file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def load_checkpoint(model_class: str, name: str | Path, example: str, device: str = "cpu") -> tuple[Any, Any]:
    """The ``transformers`` model ``model_class`` in evaluation mode on ``device``, and its processor.

    ``name`` is a folder written by ``save_pretrained`` or a name on the hub, which may be in the local cache already.
    Raises WeightsNotReachable, naming ``example``, where there are none, where a weight is missing (it would be random), or
    where ``transformers`` is not installed.
    """
    refuse = _refusal(name, example)
    try:
        import transformers
    except ImportError:
        raise refuse("transformers is not installed (pip install 'facecaption[llm]')") from None
    loader = getattr(transformers, model_class)

    def load(local: bool) -> tuple[Any, Any]:
        model, report = loader.from_pretrained(str(name), local_files_only=local, output_loading_info=True)
        absent = sorted(key for key in report["missing_keys"] if not key.endswith("position_ids"))
        misfits = sorted(str(key) for key in report.get("mismatched_keys", ()))
        if absent or misfits:
            fault = f"has no weight {absent[0]!r}" if absent else f"has a weight of another shape, {misfits[0]}"
            raise refuse(f"it {fault}, so it is no {type(model).__name__}")
        return model, transformers.AutoProcessor.from_pretrained(str(name), local_files_only=local)

    model, processor = load_weights(load, name, example)
    return model.to(device).eval(), processor


def load_weights(load: Callable[[bool], T], name: str | Path, example: str, *, is_file: bool = False) -> T:
    """What ``load(local)`` returns for weights under ``name``: a folder (or a file, where that ``is_file``), else the local
    cache, else the hub.

    ``load`` is given whether only local files may be read, and is called in quiet: progress bars and reports of missing
    weights stay out of the log, so it must judge completeness itself. Raises WeightsNotReachable as load_checkpoint does.
    """
    refuse = _refusal(name, example)
    if not str(name).strip():
        raise refuse("no model is named")
    is_local = is_file or Path(name).expanduser().is_dir()
    if not is_local and str(name).endswith(WEIGHTS_FILES):
        raise refuse("there is no such file")
    if not is_local and not _HUB_NAME.fullmatch(str(name)):
        raise refuse("there is no such folder, and it is no name of the Hugging Face hub")
    with _quiet_loading():
        if is_local:
            return _attempt(lambda: load(True), refuse)
        try:
            return load(True)
        except WeightsNotReachable:
            raise
        except Exception:  # not in the cache, or not all of it
            _require_on_hub(str(name), refuse)
        return _attempt(lambda: load(False), refuse)


def _require_on_hub(name: str, refuse: Callable[[str], WeightsNotReachable]) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        huggingface_hub.HfApi().model_info(name, timeout=_HUB_SECONDS)
    except OfflineModeIsEnabled:
        raise refuse("it is not in the local cache, and HF_HUB_OFFLINE is set") from None
    except GatedRepoError:
        raise refuse("the hub gives it only to accounts that accepted its terms") from None
    except RepositoryNotFoundError:
        raise refuse("the hub has no such model, and there is no such folder") from None
    except Exception as error:
        raise refuse(f"it is not in the local cache, and the hub cannot be reached ({type(error).__name__})") from None


def _attempt(step: Callable[[], T], refuse: Callable[[str], WeightsNotReachable]) -> T:
    """``step``'s result; what loaders raise on broken files is of many types, and each is a line to the user here."""
    try:
        return step()
    except WeightsNotReachable:
        raise
    except Exception as error:
        raise refuse(first_line(error)) from error


def _refusal(name: str | Path, example: str) -> Callable[[str], WeightsNotReachable]:
    def refuse(why: str) -> WeightsNotReachable:
        return WeightsNotReachable(
            f"no weights from {str(name)!r}: {why}; give a folder of save_pretrained or a hub name such as {example}"
        )

    return refuse


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Progress bars and reports of missing weights stay out of the log: the latter come out as an error."""
    import transformers.utils.logging as logs

    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logs.CRITICAL)
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()
