from __future__ import annotations

from pathlib import Path

import pytest

from facecaption_ml.dataset.removals import RemovalList, RemovalListError

SHA256 = "ab" * 32


def test_each_kind_of_line_removes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "removals.txt"
    lines = [
        "# asked for in May",
        "",
        "http://a.test/1.jpg",
        "host:b.test",
        SHA256.upper(),
        "0123456789abcdef",
        "f" * 16 + "_2",
    ]
    path.write_text("\n".join(lines))
    removed = RemovalList.read(str(path))
    other = "00" * 8
    assert removed.reason("http://a.test/1.jpg", f"{other}_0", None) == "removed_url"
    assert removed.reason("http://b.test/2.jpg", f"{other}_0", None) == "removed_host"
    assert removed.reason("http://www.b.test/2.jpg", f"{other}_0", None) == "removed_host"
    assert removed.reason("http://c.test/", f"{other}_0", SHA256) == "removed_hash"
    assert removed.reason("http://c.test/", "0123456789abcdef_1", None) == "removed_sample"
    assert removed.reason("http://c.test/", "f" * 16 + "_2", None) == "removed_face"
    assert removed.reason("http://c.test/", "f" * 16 + "_1", None) is None
    assert removed.reason("http://notb.test/", f"{other}_0", None) is None


def test_a_host_is_named_with_its_subdomains_however_it_is_written() -> None:
    removed = RemovalList(urls=frozenset({"http://c.test/1"}), hosts=frozenset({"B.test."}))
    assert removed.names_url("http://c.test/1")
    assert removed.names_url("https://WWW.b.test.:8443/2")
    assert not removed.names_url("http://notb.test/")
    assert not removed.names_url("http://[broken")
    assert removed.reason("http://[broken", "0_0", None) is None


def test_a_line_that_is_none_of_them_stops_the_build(tmp_path: Path) -> None:
    path = tmp_path / "removals.txt"
    path.write_text("http://a.test/\nplease remove my photo\n")
    with pytest.raises(RemovalListError, match=r"removals\.txt, line 2: 'please remove my photo'"):
        RemovalList.read(str(path))
    with pytest.raises(RemovalListError, match=r"absent\.txt"):
        RemovalList.read(str(tmp_path / "absent.txt"))


def test_no_list_removes_nothing() -> None:
    assert len(RemovalList.read("")) == 0
