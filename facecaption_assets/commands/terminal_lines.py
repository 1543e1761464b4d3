"""What of Dagster's output a person at the terminal wants to see: progress, warnings and errors, each with its time."""

from __future__ import annotations

import re
from typing import Final

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_RECORD: Final = re.compile(
    r"^(?P<date>\d{4}-\d\d-\d\d) (?P<time>\d\d:\d\d:\d\d)(?:[.,]\d+)?(?: [+-]\d{4})? - (?P<logger>\S+) - "
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) - (?P<text>.*)$"
)
_RUN: Final = re.compile(r"^(?P<job>\S+) - (?P<run>[0-9a-f]{8})-[0-9a-f-]{27} - (?P<text>.*)$")
_LOUD: Final = ("WARNING", "ERROR", "CRITICAL")
# Lines about themselves, once every two to thirty seconds.
_CHATTER: Final = re.compile(
    r"runs are currently in progress|[Cc]ollected \d+ runs? for monitoring|[Cc]hecking (run|for)|^Received "
    r"|^Priority sorting|^Launched \d+ runs|no (sensors|schedules)|^Launching Dagster services|^Serving dagster-webserver"
    r"|^Instance is configured"
    r"|^Checking \d+ assets|^(Prefetching|Done prefetching) asset records|^Tick produced 0 runs|^Adding \d+ asset evaluations"
    r"|^Submitting \d+ runs|^Finished auto-materialization tick"
    r"|skipped: (Initiating |Sensor function returned an empty result)"
)
_SKIPPED: Final = re.compile(r"^(Sensor|Schedule) \S+ skipped: ")


class TerminalLines:
    """Decides line by line; what follows a record without being one, such as a traceback, goes with it."""

    def __init__(self) -> None:
        self._showing = True
        self._skipped: dict[str, str] = {}
        self.is_error = False

    def shown(self, line: str) -> str | None:
        """The line as it goes to the terminal, None where it does not."""
        plain = _ANSI.sub("", line.rstrip("\n"))
        record = _RECORD.match(plain)
        if record is None:
            if plain[:1].strip():  # not indented, not empty
                self.is_error = self.is_error and self._showing
            return plain if self._showing else None
        level, text = record["level"], record["text"]
        self.is_error = level in _LOUD[1:]
        self._showing = level in _LOUD or self._is_of_the_product(record["logger"], level, text)
        if not self._showing or self._is_repeated(text):
            self._showing = False
            return None
        run = _RUN.match(text)
        said = f"{run['job']} {run['run']}: {run['text']}" if run else text
        mark = f"{level}: " if level in _LOUD else ""
        return f"{record['time']} {mark}{said}"

    def _is_repeated(self, text: str) -> bool:
        """Whether a sensor or schedule gives the reason why it does nothing that it gave the last time."""
        skipped = _SKIPPED.match(text)
        if not skipped:
            return False
        earlier = self._skipped.get(skipped[0])
        self._skipped[skipped[0]] = text
        return earlier == text

    @staticmethod
    def _is_of_the_product(logger: str, level: str, text: str) -> bool:
        """Lines of runs, and what the daemon does for them; not Dagster's own events of each step."""
        return level == "INFO" and not _CHATTER.search(text) and (logger == "dagster" or "daemon" in logger)
