"""Pictures by row: stored ones in a folder and on S3, several as one, drawn ones that are drawn once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_folders import ON_BOTH
from examples import examples
from facecaption_ml.benchmarks.datasets import pictures as module
from facecaption_ml.benchmarks.datasets.data import Rgb
from facecaption_ml.benchmarks.datasets.pictures import JoinedPictures, KeptPictures, StoredPictures, content_version
from facecaption_ml.decoding import decode_image
from facecaption_ml.storage.store import Store, StoreError
from servers import s3_options
from tone_world import picture_of, stored, tones_of


class Drawn:
    """Pictures that are made, not read: row i is all of tone i. ``made`` counts them; ``missing`` rows are None."""

    def __init__(self, count: int, version: str = "1", missing: Sequence[int] = ()) -> None:
        self.names: Sequence[str] = [f"drawing {row}" for row in range(count)]
        self.version, self.made = version, 0
        self._missing = missing

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        self.made += len(rows)
        return [None if row in self._missing else np.full((4, 6, 3), row % 251, np.uint8) for row in rows]


def tones(images: Sequence[Rgb | None]) -> list[int | None]:
    return [None if image is None else int(image[0, 0, 0]) for image in images]


# -- stored -----------------------------------------------------------------------------------------------------------


@ON_BOTH
def test_stored_pictures_come_back_by_row_and_what_is_gone_or_damaged_is_none(store: Store) -> None:
    known = tones_of(6)
    pictures = stored(store, "pictures", known, damaged=[2])
    store.delete("pictures/0004.png")
    found = pictures.read([5, 2, 0, 4, 0])
    assert [image is None for image in found] == [False, True, False, True, False]
    for image, row in ((found[0], 5), (found[2], 0), (found[4], 0)):
        np.testing.assert_array_equal(image, decode_image(picture_of(known[row])))
    assert pictures.read([]) == []


def test_a_store_that_cannot_be_reached_is_no_damaged_picture(s3_server: dict[str, str]) -> None:
    """Else a network fault would be kept among the features as a picture that does not decode."""
    refused = Store("s3://data/anything", {**s3_options(s3_server), "aws_secret_access_key": "wrong"})
    with pytest.raises(StoreError, match=r"^cannot reach s3://data/anything"):
        StoredPictures(refused, ["a.jpg"], [1]).read([0])


def test_the_version_differs_where_a_name_an_order_or_a_size_does(store: Store) -> None:
    given = [(["a", "b"], [1, 2]), (["a", "b"], [1, 3]), (["b", "a"], [1, 2]), (["a"], [1]), (["a", "c"], [1, 2])]
    versions = [StoredPictures(store, keys, sizes).version for keys, sizes in given]
    assert len(set(versions)) == len(given)
    assert StoredPictures(store, ["a", "b"], [1, 2]).version == versions[0]


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_parts_in_other_places_are_another_content(one: list[str], other: list[str]) -> None:
    assert (content_version(one) == content_version(other)) == (one == other)


# -- joined -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), max_size=20))
def test_joined_pictures_are_those_of_the_parts_one_after_the_other(rows: list[int]) -> None:
    parts = [Drawn(3), Drawn(5, "2", missing=[1]), Drawn(2, "3")]
    joined = JoinedPictures(parts)
    alone = [tone for part in parts for tone in tones(part.read(range(len(part.names))))]
    assert alone == [0, 1, 2, 0, None, 2, 3, 4, 0, 1]
    assert tones(joined.read(rows)) == [alone[row] for row in rows]
    assert list(joined.names) == [name for part in parts for name in part.names]


def test_a_part_may_stand_twice_and_its_version_counts() -> None:
    part = Drawn(3)
    joined = JoinedPictures([part, part])
    assert tones(joined.read([5, 0, 3, 2])) == [2, 0, 0, 2]
    assert joined.version != JoinedPictures([part]).version
    assert joined.version != JoinedPictures([part, Drawn(3, "2")]).version
    assert joined.version == JoinedPictures([Drawn(3), Drawn(3)]).version


# -- kept -------------------------------------------------------------------------------------------------------------


@ON_BOTH
def test_kept_pictures_are_drawn_once_and_the_same_ever_after(store: Store) -> None:
    first = Drawn(150)
    kept = KeptPictures(first, store)
    rows = [149, 3, 3, 70]
    assert tones(kept.read(rows)) == rows
    assert first.made == 150, "64, 64 and the last 22"
    second = Drawn(150)
    again = KeptPictures(second, store)
    assert tones(again.read(rows)) == rows
    assert second.made == 0
    assert (again.version, list(again.names)) == (first.version, list(first.names))


def test_other_versions_are_kept_apart(store: Store) -> None:
    KeptPictures(Drawn(3), store).read([0])
    other = Drawn(3, "2")
    KeptPictures(other, store).read([0])
    assert other.made == 3


@pytest.mark.parametrize("fault", ["cut", "empty", "other bytes", "fewer"])
def test_a_damaged_file_of_kept_pictures_is_drawn_anew(store: Store, fault: str) -> None:
    KeptPictures(Drawn(70), store).read([0])
    key = store.keys("1/")[0]
    whole = store.read_bytes(key)
    if fault == "fewer":
        np.save(Path(store.uri(key)), np.zeros((3, 4, 6, 3), np.uint8))
    else:
        store.write_bytes(key, {"cut": whole[: len(whole) // 2], "empty": b""}.get(fault, b"no pictures"))
    drawn = Drawn(70)
    assert tones(KeptPictures(drawn, store).read([5, 69])) == [5, 69]
    assert drawn.made == 70
    assert store.read_bytes(key) == whole


def test_a_drawn_picture_that_is_none_is_named_and_never_shifts_the_others(store: Store) -> None:
    with pytest.raises(ValueError, match=r"^drawing 3 does not decode, so it cannot be kept with the others$"):
        KeptPictures(Drawn(6, missing=[3]), store).read([5])


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(1, 30))
@examples(20)
def test_how_many_are_kept_together_changes_no_picture(rows: list[int], together: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DRAWN_TOGETHER", together)
        for _ in range(2):
            assert tones(KeptPictures(Drawn(21), Store(folder)).read(rows)) == rows
