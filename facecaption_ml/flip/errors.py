"""What FLIP's rooms raise for a user to mend, and how such an error says which options its message names."""

from __future__ import annotations

import signal

from facecaption_ml.errors import FaceCaptionError


class OptionError(FaceCaptionError):
    """One line whose words ``options`` are names of options of ``TrainingOptions``, or of arguments.

    Whoever calls the options otherwise, such as by environment variables, may put those names in their place.
    """

    def __init__(self, message: str, *options: str) -> None:
        super().__init__(message)
        self.options = options


class PresetError(OptionError):
    """A preset is unknown or its numbers do not go together; the message names it."""


class PairsError(OptionError):
    """There are no pairs to train on, or fewer than a batch."""


class TrainingError(OptionError):
    """Training cannot start or resume; one line that names the option, file or step and what to do."""


class TrainingInterrupted(Exception):  # noqa: N818
    """The training was told to stop by the signal ``number`` and left a checkpoint to resume from."""

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.number = number


def named_options(error: BaseException) -> tuple[str, ...]:
    """The options that an error's message names."""
    if isinstance(error, OptionError):
        return error.options
    option = getattr(error, "option", None)
    return (option,) if option else ()
