"""Which tests share a worker. pytest-xdist's own groups get lost with pytest 9.2, and its ``loadfile`` knows only files."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

END_TO_END = "tests/end_to_end/"
APART = f"{END_TO_END}test_pipeline_again.py"


class FileScheduling(LoadScopeScheduling):
    """A file, which has expensive fixtures, goes to one worker.

    Of tests/end_to_end, the files that only look at the finished pipeline go there together; each of the long tests of the
    other file goes where there is room.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file == APART:
            return nodeid
        return END_TO_END if file.startswith(END_TO_END) else file
