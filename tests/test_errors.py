"""What a user is told: one line for what can be mended, the place for what cannot."""

from __future__ import annotations

import errno

import pytest

from facecaption_ml.errors import FaceCaptionError, describe, is_mendable, naming


def test_the_message_of_what_can_be_mended_is_the_line() -> None:
    error = FaceCaptionError("list.csv, line 3: no URL\n  in it")
    assert describe(error) == "list.csv, line 3: no URL in it"
    assert is_mendable(error)


def test_the_edge_names_the_option_once() -> None:
    with pytest.raises(FaceCaptionError) as caught, naming("OUTER"), naming("FACECAPTION_SOURCE"):
        raise FaceCaptionError("list.csv is not there")
    assert str(caught.value) == "FACECAPTION_SOURCE: list.csv is not there"
    with pytest.raises(FaceCaptionError) as caught, naming("FACECAPTION_SOURCE"):
        raise FaceCaptionError("FACECAPTION_SOURCE is not set")
    assert str(caught.value) == "FACECAPTION_SOURCE is not set"


def test_naming_leaves_faults_of_the_program_alone() -> None:
    with pytest.raises(KeyError, match="x"), naming("FACECAPTION_SOURCE"):
        raise KeyError("x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EADDRINUSE])
def test_disks_paths_permissions_and_ports_are_the_users_to_mend(code: int) -> None:
    error = OSError(code, "cannot", "/some/where")
    assert is_mendable(error)
    assert describe(error) == "/some/where: cannot"


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, TypeError, AssertionError, ZeroDivisionError])
def test_anything_else_is_an_internal_error_with_its_place(kind: type[Exception]) -> None:
    def fail(*_: object) -> None:
        raise kind("boom")

    import facecaption_ml.errors as module

    try:
        with module.naming("FACECAPTION_SOURCE"):
            fail()
    except Exception as error:
        line = describe(error)
    assert line.startswith(f"internal error: {kind.__name__}: boom")
    assert not is_mendable(kind("boom"))


def test_the_place_is_the_innermost_line_of_the_project() -> None:
    from facecaption_ml.taxonomy import settle_conflicts

    try:
        settle_conflicts(3)  # type: ignore[arg-type]
    except TypeError as error:
        line = describe(error)
    assert line.startswith("internal error: TypeError: ")
    assert "(facecaption_ml/taxonomy.py, line " in line
