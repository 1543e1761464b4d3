"""A shard that is run again under other settings, over replaced files, or over a table of an earlier version."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from facecaption_ml.images import EarlierRows, FetchStatus, fetch_raw_images, fetch_to_file
from facecaption_ml.images.decisions import decided_by
from facecaption_ml.images.stored_objects import stored_version
from facecaption_ml.storage.store import Store
from hostile_site import Site, manifest, picture, reply
from local_fetch import local
from name_server import name_server

LARGE = picture(1, size=(200, 100))


def run_twice(site: Site, url: str, then: dict, now: dict) -> tuple[dict, dict, int]:
    """The row under each of two settings, and the requests of the second run."""
    source = manifest([url])
    first = fetch_raw_images(source, *local(**then))
    site.requests.clear()
    second = fetch_raw_images(source, *local(**now), previous=first)
    return first.row(0, named=True), second.row(0, named=True), len(site.requests)


@pytest.mark.parametrize(
    ("path", "then", "now", "status"),
    [
        ("/large", {"max_image_bytes": 1000}, {"max_image_bytes": 10**6}, "too_large"),
        ("/large", {"max_image_pixels": 1000}, {"max_image_pixels": 10**6}, "too_many_pixels"),
        ("/hop/3", {"max_redirects": 1}, {"max_redirects": 9}, "too_many_redirects"),
        ("/large", {"allow_private_addresses": False}, {}, "refused_address"),
        ("/optout", {}, {"respect_opt_out": False}, "opted_out"),
    ],
)
def test_a_corrected_setting_takes_effect(site: Site, path: str, then: dict, now: dict, status: str) -> None:
    site.replies["/large"] = reply(body=LARGE)
    site.replies["/optout"] = reply(body=LARGE, X_Robots_Tag="noai")
    first, second, requests = run_twice(site, site.base + path, then, now)
    assert first["status"] == status
    assert first["decided_by"]
    assert (second["status"], second["attempts"]) == ("ok", 2)
    assert requests > 0
    same, _, requests = run_twice(site, site.base + path, then, then)
    assert same["status"] == status
    assert requests == 0  # it would end so again


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "protocol_error"),
        (reply(body=b"x", Content_Encoding=", ".join(["gzip"] * 9)), "undecodable"),
    ],
)
def test_a_robots_txt_that_cannot_be_read_holds_nothing_up_where_opt_outs_are_not_asked_for(
    site: Site, answer: bytes, status: str
) -> None:
    site.replies["/robots.txt"] = answer
    first, second, _ = run_twice(site, f"{site.base}/image/1", {}, {"respect_opt_out": False})
    assert first["status"] == status
    assert first["error"].startswith("robots.txt: ")
    assert second["status"] == "ok"


def test_other_name_servers_may_know_another_address() -> None:
    source = manifest(["http://names.example/x.jpg"])
    with name_server() as inside, name_server() as outside:
        inside.addresses["names.example"] = ["10.0.0.1"]
        then, now = (
            local(allow_private_addresses=False, nameservers=(server.address,)) for server in (inside, outside)
        )
        first = fetch_raw_images(source, *then)
        assert first["status"].to_list() == ["refused_address"]
        assert fetch_raw_images(source, *then, previous=first)["attempts"].to_list() == [1]
        assert fetch_raw_images(source, *now, previous=first)["attempts"].to_list() == [2]


def test_a_redirect_that_leads_nowhere_is_tried_again_with_a_contact(site: Site) -> None:
    site.replies["/astray"] = reply("302 Found", Location="login:")
    first, second, _ = run_twice(site, f"{site.base}/astray", {}, {"user_agent_contact": "a@b.org"})
    assert (first["status"], first["attempts"], second["attempts"]) == ("invalid_url", 1, 2)
    _, same, _ = run_twice(site, f"{site.base}/astray", {}, {})
    assert same["attempts"] == 1


def test_a_text_never_names_a_limit_that_is_not_set_any_more(site: Site) -> None:
    site.replies["/large"] = reply(body=LARGE)
    _, second, _ = run_twice(site, f"{site.base}/large", {"max_image_bytes": 1000}, {"max_image_bytes": 2000})
    assert second["status"] == "too_large"
    assert "max_image_bytes 2000" in second["error"]
    assert second["decided_by"] == "max_image_bytes=2000"


@pytest.mark.parametrize(("code", "again"), [(401, True), (403, True), (404, False), (410, False)])
def test_an_answer_that_a_contact_may_change(site: Site, code: int, again: bool) -> None:
    url = f"{site.base}/status/{code}"
    first, second, requests = run_twice(site, url, {}, {"user_agent_contact": "https://a.test/why"})
    assert first["status"] == second["status"] == "http_client_error"
    assert (requests > 0) == again


def test_another_proxy_counts_but_its_password_is_not_stored() -> None:
    def noted(**settings: object) -> str | None:
        return decided_by(FetchStatus.http_client_error, "HTTP 403", "http://a.test/x", *local(**settings))

    by_proxy = {noted(proxy=proxy) for proxy in ("", "http://user:secret@127.0.0.1:9", "http://127.0.0.1:9")}
    assert len(by_proxy) == 3
    assert "secret" not in str(by_proxy)


@pytest.mark.parametrize(
    ("setting", "status"), [({"max_image_bytes": 2000}, "too_large"), ({"max_image_pixels": 2000}, "too_many_pixels")]
)
def test_a_stricter_limit_takes_pictures_away_without_a_request(site: Site, setting: dict, status: str) -> None:
    site.replies["/large"] = reply(body=LARGE)
    source = manifest([f"{site.base}{path}" for path in ("/large", "/image/1")])
    first = fetch_raw_images(source, *local())
    assert first["status"].to_list() == ["ok", "ok"]
    site.requests.clear()
    second = fetch_raw_images(source, *local(**setting), previous=first)
    assert second["status"].to_list() == [status, "ok"]
    assert second["image"].is_null().to_list() == [True, False]
    assert site.requests == []
    third = fetch_raw_images(source, *local(), previous=second)
    assert third["status"].to_list() == ["ok", "ok"]
    assert site.requested("/large") == 1
    assert third["image"].equals(first["image"])


def test_opt_outs_that_count_from_now_on_reach_pictures_that_are_there(site: Site) -> None:
    site.replies["/out"] = reply(body=picture(5), X_Robots_Tag="noai")
    source = manifest([f"{site.base}{path}" for path in ("/out", "/image/1")])
    first = fetch_raw_images(source, *local(respect_opt_out=False))
    assert first["status"].to_list() == ["ok", "ok"]
    second = fetch_raw_images(source, *local(), previous=first)
    assert second["status"].to_list() == ["opted_out", "ok"]
    assert second["image"][0] is None
    site.requests.clear()
    assert fetch_raw_images(source, *local(respect_opt_out=False), previous=second)["status"].to_list() == ["ok", "ok"]
    assert site.requested("/image/1") == 0


def test_addresses_that_are_refused_from_now_on(site: Site) -> None:
    _, second, _ = run_twice(site, f"{site.base}/image/1", {}, {"allow_private_addresses": False})
    assert second["status"] == "refused_address"
    assert second["image"] is None


def test_refetch_takes_the_rows_of_a_status(site: Site) -> None:
    source = manifest(
        [f"{site.base}{path}" for path in ("/status/404", "/image/1", "/page", "/status/404")], [False] * 3 + [True]
    )
    site.replies["/page"] = reply(body=b"<html>later</html>" * 9)
    first = fetch_raw_images(source, *local())
    assert first["status"].to_list() == ["http_client_error", "ok", "not_an_image", "duplicate_url"]
    site.requests.clear()
    again = frozenset({FetchStatus.http_client_error})
    second = fetch_raw_images(source, *local(refetch=again), previous=first)
    assert [head.split(" ", 2)[1] for head in site.requests] == ["/robots.txt", "/status/404"]
    assert second["attempts"].to_list() == [2, 1, 1, 0]
    site.replies["/page"] = reply(body=picture(9))
    both = frozenset({FetchStatus.ok, FetchStatus.not_an_image})
    third = fetch_raw_images(source, *local(refetch=both), previous=second)
    assert third["status"].to_list() == ["http_client_error", "ok", "ok", "duplicate_url"]
    assert site.requested("/image/1") == 1


def test_a_table_of_an_earlier_version_loads_and_its_failures_are_tried_once(site: Site) -> None:
    site.replies["/large"] = reply(body=LARGE)
    source = manifest([f"{site.base}{path}" for path in ("/large", "/image/1", "/status/404")])
    limits = {"max_image_bytes": 10_000}
    old = fetch_raw_images(source, *local(**limits)).drop("decided_by", "file_version")
    assert old["status"].to_list() == ["too_large", "ok", "http_client_error"]
    site.requests.clear()
    first = fetch_raw_images(source, *local(**limits), previous=old)
    assert first["status"].to_list() == old["status"].to_list()
    assert site.requested("/large") == 1
    assert site.requested("/image/1") == site.requested("/status/404") == 0
    site.requests.clear()
    fetch_raw_images(source, *local(**limits), previous=first)
    assert site.requests == []
    small = fetch_raw_images(source, *local(max_image_bytes=100), previous=old)
    assert small["status"].to_list() == ["too_large", "too_large", "http_client_error"]


def write(path: Path, data: bytes, when: int) -> None:
    path.write_bytes(data)
    os.utime(path, (when, when))


def test_a_file_that_was_replaced_or_repaired_is_read_again(tmp_path: Path) -> None:
    names = ("same.jpg", "new.jpg", "empty.jpg", "missing.jpg", "gone.jpg", "copy.jpg", "é\udcff.jpg")
    paths = [tmp_path / name for name in names]
    for number, path in enumerate(paths):
        if path.name not in ("missing.jpg", "empty.jpg", "copy.jpg"):
            write(path, picture(number), 1_000)
    write(tmp_path / "empty.jpg", b"", 1_000)
    write(tmp_path / "copy.jpg", picture(1), 1_000)  # as new.jpg
    source = manifest([path.as_uri() for path in paths])
    policy = local(allow_files_under=tmp_path)
    first = fetch_raw_images(source, *policy)
    assert first["status"].to_list() == ["ok", "ok", "not_an_image", "missing_file", "ok", "duplicate_image", "ok"]
    write(tmp_path / "new.jpg", picture(21), 2_000)
    write(tmp_path / "empty.jpg", picture(22), 1_000)  # another size at the same time
    write(tmp_path / "missing.jpg", picture(23), 2_000)
    (tmp_path / "gone.jpg").unlink()
    second = fetch_raw_images(source, *policy, previous=first)
    assert second["status"].to_list() == ["ok"] * 7
    expected = [picture(n) for n in (0, 21, 22, 23, 4, 1, 6)]
    assert second["image"].struct.field("bytes").to_list() == expected
    assert second["attempts"].to_list() == [1, 2, 2, 2, 1, 2, 1]
    third = fetch_raw_images(source, *policy, previous=second)
    assert third.equals(second)


def test_a_copy_that_was_put_back_with_its_time_is_read(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.jpg", picture(1)
    write(path, whole[:200] + bytes(len(whole) - 200), 1_000)
    policy, source = local(allow_files_under=tmp_path), manifest([path.as_uri()])
    first = fetch_raw_images(source, *policy)
    write(path, whole, 1_000)
    second = fetch_raw_images(source, *policy, previous=first)
    assert (first["status"][0], second["status"][0]) == ("undecodable", "ok")


def test_an_object_that_was_replaced_is_read_again() -> None:
    objects = {"s3://b/a.jpg": picture(1), "s3://b/c.jpg": picture(2)}
    reads: list[str] = []

    def read(url: str) -> bytes:
        reads.append(url)
        return objects[url]

    def version(url: str) -> str | None:
        return str(hash(objects[url])) if url in objects else None

    source = manifest(["s3://b/a.jpg", "s3://b/c.jpg", "s3://b/none.jpg"])
    policy = local(open_object=read, object_version=version)
    first = fetch_raw_images(source, *policy)
    assert first["status"].to_list() == ["ok", "ok", "missing_file"]
    reads.clear()
    objects["s3://b/a.jpg"] = picture(3)
    second = fetch_raw_images(source, *policy, previous=first)
    assert reads == ["s3://b/a.jpg"]
    assert second["image"].struct.field("bytes").to_list() == [picture(3), picture(2), None]
    assert stored_version("s3://b/none.jpg", policy[1]) is None


def test_an_earlier_table_is_read_from_its_file(site: Site, tmp_path: Path) -> None:
    source = manifest([f"{site.base}/image/{i}" for i in range(9)] + [f"{site.base}/status/503"])
    table, facts = fetch_to_file(source, *local(scratch=tmp_path / "bodies"))
    whole = fetch_raw_images(source, *local())
    assert facts["image_bytes"].to_list() == whole["image"].struct.field("bytes").bin.size().to_list()
    store = Store(str(tmp_path / "store"))
    store.write_table("raw_images", table, "shard-00000", incomplete=True)
    site.requests.clear()
    backwards = source.reverse()
    with store.open_table("raw_images", "shard-00000", incomplete=True) as parquet:
        again, _ = fetch_to_file(backwards, *local(), EarlierRows.of_file(parquet))
    assert {head.split(" ", 2)[1] for head in site.requests} == {"/robots.txt", "/status/503"}
    rows = pl.concat(again.batches())
    kept = rows.filter(pl.col("status") == "ok").reverse()
    assert kept.drop("fetched_at").equals(whole.filter(pl.col("status") == "ok").drop("fetched_at"))
    assert list((tmp_path / "bodies").iterdir()) == []


def test_texts_from_elsewhere_are_cut(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    urls = [
        "data:image/png;base64," + "A" * 100_000,
        f"{'x' * 5000}://host/",
        "http://" + "h" * 5000 + "/",
        "file://h/" + "p" * 9000,
    ]
    table = fetch_raw_images(manifest(urls), *local())
    assert table["status"].to_list() == ["invalid_url"] * 4
    assert table["error"].str.len_chars().max() <= 200
    assert all(len(record.getMessage()) < 1000 for record in caplog.records)
