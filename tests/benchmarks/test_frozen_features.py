"""Cached features: what is computed again and what is not, in a folder and on S3; views; faults."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_folders import ON_BOTH
from examples import examples
from facecaption_ml.benchmarks.datasets.pictures import StoredPictures
from facecaption_ml.benchmarks.encoders import features
from facecaption_ml.benchmarks.encoders.features import FOLDER, FeatureCache, FeatureError
from facecaption_ml.benchmarks.tasks.protocol import SplitFeatures
from facecaption_ml.storage.store import Store
from tone_world import ToneModel, cache_of, encoded_anew, picture_of, stored, tones_of

ROUNDED = 1e-3  # of features in half precision: 11 bits


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight pictures a chunk, four texts."""
    monkeypatch.setattr(features, "CHUNK", 8)
    monkeypatch.setattr(features, "_TEXTS", 4)


def chunk_keys(store: Store, kind: str = "") -> list[str]:
    return [key for key in store.keys(f"{FOLDER}/") if f"/{kind}" in key]


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
@ON_BOTH
def test_a_second_call_encodes_nothing_and_gives_the_same(store: Store) -> None:
    pictures, rows = stored(store, "pictures", tones_of(20), damaged=[7]), [19, 3, 3, 7, 12]
    first = cache_of(store)
    found, texts = first.pictures(pictures, rows, layers=True), first.texts(["1", "2", "1"])
    assert first.encoded == 19 + 2  # three chunks but for the damaged one, and two distinct texts
    model = ToneModel()
    second = cache_of(store, model)
    again, read = second.pictures(pictures, rows, layers=True), second.texts(["1", "2", "1"])
    assert (second.encoded, model.seen, model.read) == (0, 0, 0)
    np.testing.assert_array_equal(found.pooled, again.pooled)
    np.testing.assert_array_equal(found.layers, again.layers)
    np.testing.assert_array_equal(texts, read)
    assert found.readable.tolist() == again.readable.tolist() == [True, True, True, False, True]


DAMAGED = {4, 5, 6, 7, 20}


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> StoredPictures:
    """Five of which do not decode, four of them one after the other."""
    return stored(Store(str(tmp_path_factory.mktemp("thirty"))), "pictures", tones_of(30), damaged=sorted(DAMAGED))


@given(
    st.lists(st.integers(0, 29), min_size=1, max_size=40), st.booleans(), st.integers(1, 9), st.sampled_from([4, 7, 64])
)
@examples(20)
def test_rows_come_back_in_the_order_asked_for_as_direct_encoding_gives_them(
    thirty: StoredPictures, rows: list[int], layers: bool, batch: int, chunk: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "CHUNK", chunk)
        for _ in range(2):  # made, then kept
            cache = cache_of(Store(folder), batch_size=batch)
            if DAMAGED.issuperset(rows):
                with pytest.raises(FeatureError, match="decodes"):
                    cache.pictures(thirty, rows, layers=layers)
                continue
            found = cache.pictures(thirty, rows, layers=layers)
            assert found.readable.tolist() == [row not in DAMAGED for row in rows]
            assert not found.pooled[~found.readable].any()
            direct = encoded_anew(ToneModel(), thirty, [row for row in rows if row not in DAMAGED])
            np.testing.assert_allclose(found.pooled[found.readable], direct.pooled, rtol=ROUNDED, atol=ROUNDED)
            assert (found.layers is not None) == layers
            if found.layers is not None and direct.layers is not None:
                np.testing.assert_allclose(found.layers[found.readable], direct.layers, rtol=ROUNDED, atol=ROUNDED)


@pytest.mark.usefixtures("small_chunks")
def test_another_task_shares_the_chunks_that_are_there(store: Store) -> None:
    """Rows of other splits of the same pictures: only the chunk that nobody asked for yet is encoded."""
    pictures = stored(store, "pictures", tones_of(24))
    cache_of(store).pictures(pictures, [0, 15], layers=True)
    other = cache_of(store)
    other.pictures(pictures, [14, 1], layers=False)
    assert other.encoded == 0
    other.pictures(pictures, [14, 16], layers=False)
    assert other.encoded == 8
    assert len(chunk_keys(store, "layers-")) == 2, "layers are kept where they were asked for only"
    other.pictures(pictures, [16], layers=True)
    assert other.encoded == 16


@pytest.mark.usefixtures("small_chunks")
@ON_BOTH
def test_an_interrupted_run_goes_on_with_the_next_chunk(store: Store) -> None:
    pictures, texts = stored(store, "pictures", tones_of(30)), [str(n) for n in range(10)]
    whole = cache_of(store)
    wanted, words = whole.pictures(pictures, range(30), layers=True), whole.texts(texts)
    gone = [*chunk_keys(store, "pooled-")[2:], chunk_keys(store, "layers-")[1], chunk_keys(store, "texts/")[0]]
    for key in gone:
        store.delete(key)
    rest = cache_of(store)
    found, read = rest.pictures(pictures, range(30), layers=True), rest.texts(texts)
    np.testing.assert_array_equal(wanted.pooled, found.pooled)
    np.testing.assert_array_equal(wanted.layers, found.layers)
    np.testing.assert_array_equal(words, read)
    assert 8 + 8 + 6 + 2 <= rest.encoded <= 8 + 8 + 6 + 4  # of three chunks, and of one of 4, 4 and 2 texts


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("fault", ["cut", "empty", "other bytes", "other arrays", "too few rows"])
def test_a_damaged_file_is_made_anew(store: Store, fault: str) -> None:
    pictures = stored(store, "pictures", tones_of(16))
    first = cache_of(store)
    wanted, words = first.pictures(pictures, range(16), layers=True), first.texts(["1", "2"])
    for kind in ("pooled-", "layers-", "texts/"):
        key = chunk_keys(store, kind)[0]
        whole = store.read_bytes(key)
        if fault == "too few rows":
            with np.load(Path(store.uri(key))) as arrays:
                np.savez(Path(store.uri(key)), **{name: array[:1] for name, array in arrays.items()})
        elif fault == "other arrays":
            np.savez(Path(store.uri(key)), something=np.zeros(8))
        else:
            store.write_bytes(key, {"cut": whole[: len(whole) // 2], "empty": b""}.get(fault, b"no archive" * 99))
    second = cache_of(store)
    found = second.pictures(pictures, range(16), layers=True)
    np.testing.assert_array_equal(wanted.pooled, found.pooled)
    np.testing.assert_array_equal(wanted.layers, found.layers)
    np.testing.assert_array_equal(words, second.texts(["1", "2"]))
    assert second.encoded == 8 + 2
    third = cache_of(store)
    third.pictures(pictures, range(16), layers=True)
    assert third.encoded == 0


@given(st.data())
@examples(30)
def test_no_changed_byte_of_a_kept_file_is_ever_fatal(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        pictures = stored(store, "pictures", tones_of(2))
        wanted = cache_of(store).pictures(pictures, [0, 1], layers=False)
        key = chunk_keys(store, "pooled-")[0]
        whole = bytearray(store.read_bytes(key))
        for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
            whole[at] ^= data.draw(st.integers(1, 255))
        store.write_bytes(key, bytes(whole))
        found = cache_of(store).pictures(pictures, [0, 1], layers=False)
        np.testing.assert_array_equal(wanted.pooled, found.pooled)


def test_another_version_of_the_model_or_of_the_pictures_is_never_mixed_up(store: Store) -> None:
    tones = tones_of(6)
    pictures = stored(store, "pictures", tones)
    cache_of(store).pictures(pictures, [0], layers=False)
    store.write_bytes("pictures/0000.png", picture_of(tones[0]) + b"more")
    sizes = store.sizes("pictures/")
    changed = StoredPictures(store, list(sizes), list(sizes.values()))
    for model, some in (
        (ToneModel(version="2"), pictures),
        (ToneModel(name="other"), pictures),
        (ToneModel(), changed),
        (ToneModel(), stored(store, "pictures", tones_of(7))),
    ):
        cache = cache_of(store, model)
        cache.pictures(some, [0], layers=False)
        assert cache.encoded == len(some.names)
        assert cache.encoded == model.seen


def test_texts_of_any_order_and_number_come_back_in_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_TEXTS", 3)
    texts = [str(n % 7) for n in range(20)]
    model = ToneModel()
    found = cache_of(store, model, batch_size=1).texts(texts)
    assert model.read == 7
    np.testing.assert_allclose(found, ToneModel().encode_texts(texts), rtol=ROUNDED, atol=ROUNDED)


# -- views ------------------------------------------------------------------------------------------------------------


def test_a_view_follows_from_its_number_and_row_alone(store: Store) -> None:
    """Not from batches, other rows, or what was computed before."""
    pictures = stored(store, "pictures", tones_of(12))
    stores = [Store(f"{store.root}/{n}") for n in range(3)]
    found = [
        cache_of(stores[0], batch_size=5).pictures(pictures, range(12), layers=True, view=1),
        cache_of(stores[1], batch_size=1).pictures(pictures, range(12), layers=True, view=1),
    ]
    last = cache_of(stores[2], batch_size=12)
    last.pictures(pictures, range(12), layers=True, view=2)
    backwards = last.pictures(pictures, range(11, -1, -1), layers=True, view=1)
    np.testing.assert_allclose(found[0].pooled, found[1].pooled, atol=ROUNDED)
    np.testing.assert_allclose(found[0].pooled, backwards.pooled[::-1], atol=ROUNDED)
    np.testing.assert_allclose(found[0].layers, backwards.layers[::-1], atol=ROUNDED)


def test_views_differ_from_the_plain_picture_and_from_each_other(store: Store) -> None:
    pictures, cache = stored(store, "pictures", tones_of(12)), cache_of(store)
    views = [cache.pictures(pictures, range(12), layers=False, view=view).pooled for view in (0, 1, 2)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (np.abs(views[one] - views[other]).max(axis=1) > 0.05).all()
    again = cache.pictures(pictures, range(12), layers=False)
    np.testing.assert_array_equal(views[0], again.pooled)
    assert cache.encoded == 36


# -- faults -----------------------------------------------------------------------------------------------------------


def test_views_leave_out_what_one_of_them_does_not_have(store: Store) -> None:
    """A file that went away between two views is left out of both: zeros are no features."""
    pictures, cache = stored(store, "pictures", tones_of(4)), cache_of(store)
    cache.pictures(pictures, range(4), layers=False, view=1)
    store.delete("pictures/0002.png")
    split = SplitFeatures.of(cache, pictures, np.arange(4), layers=False, views=(1, 2))
    assert split.rows.tolist() == [0, 1, 3]
    assert split.unreadable == 1
    assert all(len(view.pooled) == 3 and view.pooled.any(axis=1).all() for view in split.views)


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_without_any_picture_that_decodes_is_left_out_like_any_other_row(store: Store) -> None:
    pictures = stored(store, "pictures", tones_of(17), damaged=[16])
    for _ in range(2):
        found = cache_of(store).pictures(pictures, range(17), layers=True)
        assert found.readable.tolist() == [True] * 16 + [False]
        backwards = cache_of(store).pictures(pictures, range(16, -1, -1), layers=True)
        assert not backwards.pooled[0].any()
        np.testing.assert_array_equal(backwards.pooled[1:], found.pooled[15::-1])


def test_rows_of_which_none_decodes_are_one_line(store: Store) -> None:
    pictures = stored(store, "pictures", tones_of(4), damaged=[1, 2])
    for _ in range(2):
        with pytest.raises(FeatureError, match=r"^not one of 2 pictures decodes, pictures/0002\.png among them"):
            cache_of(store).pictures(pictures, [2, 1], layers=False)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, 1e6])
def test_a_feature_that_is_no_number_names_the_model_and_the_picture(store: Store, spoilt: float) -> None:
    tones = np.maximum(tones_of(5), 1)
    tones[3, 0] = 0
    pictures, model = stored(store, "pictures", tones), ToneModel("rough", "7", spoilt=spoilt)
    with pytest.raises(FeatureError) as refused:
        cache_of(store, model).pictures(pictures, [0], layers=False)
    assert str(refused.value) == ("rough, version 7: a feature of 'pictures/0003.png' is NaN or beyond half precision")
    assert chunk_keys(store) == []


def test_a_text_whose_feature_is_no_number_is_named(store: Store) -> None:
    with pytest.raises(FeatureError, match=r"^tones, version 1: a feature of '9999999999' is NaN or beyond half"):
        cache_of(store).texts(["1", "9999999999"])


def test_a_model_without_layers_is_named_where_they_are_wanted(store: Store) -> None:
    cache = cache_of(store, ToneModel("align", layers=0))
    with pytest.raises(FeatureError, match=r"^align has no layers of tokens, so there is nothing to probe layer by"):
        cache.pictures(stored(store, "pictures", tones_of(2)), [0], layers=True)
    assert cache.pictures(stored(store, "pictures", tones_of(2)), [0], layers=False).layers is None


def test_the_progress_of_a_call_ends_at_all_of_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK", 8)
    heard: list[tuple[int, int]] = []
    cache = FeatureCache(store, ToneModel(), on_progress=lambda done, of: heard.append((done, of)))
    cache.pictures(stored(store, "pictures", tones_of(20)), range(20), layers=False)
    assert heard == [(8, 20), (16, 20), (20, 20)]
