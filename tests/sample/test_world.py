"""The small web: what its manifest holds, and what its server really does over HTTP."""

from __future__ import annotations

import http.client
import io
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageOps

from facecaption_ml.sample import SampleServer, SampleWorld, draw_scene, serve_in_subprocess
from facecaption_ml.sample.alt_text import alt_text
from facecaption_ml.sample.bodies import VARIANT_SHARES, encode_scene
from facecaption_ml.sample.world import FORBIDDEN_HOST, HANGING_HOSTS, HOST_PATTERN, USABLE, Behaviour, Page

WORLD = SampleWorld(seed=4, scenes=600)


@pytest.fixture(scope="module")
def server() -> Iterator[SampleServer]:
    with SampleServer(WORLD) as running:
        yield running


def page_that(behaviour: Behaviour, **more: object) -> Page:
    return next(p for p in WORLD.pages if p.behaviour is behaviour and all(getattr(p, k) == v for k, v in more.items()))


def get(server: SampleServer, host: str, path: str, timeout: float = 10.0) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.port), timeout=timeout)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    try:
        return response, response.read()
    finally:
        connection.close()


# -- the manifest ----------------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_manifests() -> None:
    frame = WORLD.manifest()
    assert frame.columns == ["URL", "TEXT", "WIDTH", "HEIGHT", "NSFW"]
    assert frame.height == 600
    assert frame.equals(SampleWorld(4, 600).manifest())
    assert not frame.equals(SampleWorld(5, 600).manifest())
    assert frame["URL"].str.contains(r"^http://[a-z0-9.-]+\.sample\.(test|invalid)/[a-z]+/\d{6}\.[a-z]+$").all()
    assert 8 <= len({page.host for page in WORLD.pages}) <= 16


def test_the_manifest_has_its_share_of_trouble() -> None:
    kinds = Counter(page.behaviour for page in WORLD.pages)
    assert set(kinds) == set(Behaviour)
    assert 0.85 <= sum(kinds[kind] for kind in USABLE) / 600 <= 0.88
    dead = sum(kinds[kind] for kind in (Behaviour.not_found, Behaviour.removed, Behaviour.server_error)) / 600
    assert 0.04 <= dead <= 0.06
    assert kinds[Behaviour.hangs] <= 8
    frame = WORLD.manifest()
    flags = dict(frame["NSFW"].value_counts().iter_rows())
    assert flags["NSFW"] >= 2
    assert flags["UNSURE"] >= 2
    assert flags["UNLIKELY"] > 500
    assert 2 <= frame.height - frame["URL"].n_unique() <= 12
    by_url = frame.group_by("URL").agg(pl.col("WIDTH").n_unique().alias("sizes"))
    assert (by_url["sizes"] == 1).all()
    sources = Counter((p.scene, p.variant) for p in {p.url: p for p in WORLD.pages}.values())
    assert sum(count > 1 for count in sources.values()) >= 2, "different URLs, same bytes"
    assert {page.variant for page in WORLD.pages} == {"jpeg", *VARIANT_SHARES}


def test_a_small_world_has_whole_rows_too() -> None:
    assert SampleWorld(0, 1).manifest().height == 1
    assert SampleWorld(0, 12).manifest().height == 12
    with pytest.raises(ValueError, match="scenes is 0"):
        SampleWorld(0, 0)


def test_truth_names_the_faces_of_every_url() -> None:
    world = SampleWorld(seed=4, scenes=40)
    truth = world.truth()
    assert set(truth) == {page.url for page in world.pages}
    for page in world.pages[:8]:
        if page.behaviour in USABLE:
            drawn = draw_scene(page.scene).faces
            assert [face.box for face in truth[page.url]] == [face.box for face in drawn]
        else:
            assert truth[page.url] == ()


def test_alt_text_seldom_tells_of_the_face() -> None:
    rng = np.random.default_rng(0)
    labels = frozenset({"Blond_Hair", "Smiling", "Young"})
    texts = [alt_text(rng, labels) for _ in range(2000)]
    telling = np.mean(["blonde" in text or "smiling" in text for text in texts])
    assert 0.03 < telling < 0.15
    assert len(set(texts)) > 1000
    assert not any("blonde" in alt_text(rng, None) for _ in range(500))
    assert not any("{" in text for text in texts)


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["jpeg", *VARIANT_SHARES])
def test_every_form_of_a_file_shows_the_scene(variant: str) -> None:
    scene = draw_scene(11).image
    data, kind = encode_scene(scene, variant, 11)
    with Image.open(io.BytesIO(data)) as opened:
        assert kind == f"image/{(opened.format or '').lower()}"
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("L"), np.float32)
    assert upright.shape == scene.shape[:2]
    inner = (slice(16, -16), slice(16, -16))  # the one with alpha is transparent at the rim
    assert np.abs(upright[inner] - np.asarray(Image.fromarray(scene).convert("L"), np.float32)[inner]).mean() < 12


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(ValueError, match="'tiff'"):
        encode_scene(np.zeros((4, 4, 3), np.uint8), "tiff", 0)


# -- the server ------------------------------------------------------------------------------------------------------


def test_pictures_arrive_with_the_announced_size(server: SampleServer) -> None:
    page = page_that(Behaviour.ok, variant="jpeg")
    response, body = get(server, page.host, page.path)
    assert response.status == 200
    assert response.getheader("Content-Type") == "image/jpeg"
    with Image.open(io.BytesIO(body)) as image:
        assert image.size == (page.width, page.height)
    assert get(server, page.host, page.path)[1] == body
    assert get(server, "other.sample.test", page.path)[0].status == 404


@pytest.mark.parametrize(
    ("behaviour", "status"), [(Behaviour.not_found, 404), (Behaviour.removed, 410), (Behaviour.server_error, 500)]
)
def test_dead_links_stay_dead(server: SampleServer, behaviour: Behaviour, status: int) -> None:
    page = page_that(behaviour)
    assert [get(server, page.host, page.path)[0].status for _ in range(2)] == [status, status]


def test_a_busy_page_answers_the_second_time(server: SampleServer) -> None:
    page = page_that(Behaviour.unavailable_once)
    assert [get(server, page.host, page.path)[0].status for _ in range(3)] == [503, 200, 200]


def test_redirects_lead_to_the_picture(server: SampleServer) -> None:
    page = page_that(Behaviour.redirect, hops=3)
    path, statuses = page.path, []
    for _ in range(6):
        response, body = get(server, page.host, path)
        statuses.append(response.status)
        if response.status == 200:
            break
        path = response.getheader("Location") or ""
    assert statuses == [301, 302, 301, 200]
    assert body[:2] == b"\xff\xd8" or body[:4] in (b"\x89PNG", b"RIFF", b"GIF8")
    loop = page_that(Behaviour.redirect_loop)
    assert get(server, loop.host, loop.path)[0].getheader("Location") == loop.url


def test_bodies_that_are_not_what_they_claim(server: SampleServer) -> None:
    html, lying = page_that(Behaviour.html), page_that(Behaviour.html_as_image)
    assert get(server, html.host, html.path)[1].startswith(b"<!doctype html>")
    response, body = get(server, lying.host, lying.path)
    assert response.getheader("Content-Type") == "image/jpeg"
    assert body.startswith(b"<!doctype html>")
    renamed = page_that(Behaviour.image_as_html, variant="jpeg")
    response, body = get(server, renamed.host, renamed.path)
    assert response.getheader("Content-Type") == "text/html"
    assert body[:2] == b"\xff\xd8"
    cut = page_that(Behaviour.truncated)
    with pytest.raises(http.client.IncompleteRead):
        get(server, cut.host, cut.path)


def test_hostile_bodies(server: SampleServer) -> None:
    huge = page_that(Behaviour.too_large)
    connection = http.client.HTTPConnection("127.0.0.1", int(server.port), timeout=10)
    connection.request("GET", huge.path, headers={"Host": huge.host})
    response = connection.getresponse()
    assert int(response.getheader("Content-Length") or 0) > 100_000_000
    assert len(response.read(1_000_000)) == 1_000_000
    connection.close()
    bomb = page_that(Behaviour.too_many_pixels)
    _, body = get(server, bomb.host, bomb.path)
    assert len(body) < 1_000_000
    assert struct.unpack(">II", body[16:24]) == (bomb.width, bomb.height) == (30_000, 30_000)


def test_opt_outs_are_said(server: SampleServer) -> None:
    page = page_that(Behaviour.opted_out)
    assert "noai" in (get(server, page.host, page.path)[0].getheader("X-Robots-Tag") or "")
    assert b"Disallow: /\n" in get(server, FORBIDDEN_HOST, "/robots.txt")[1]
    assert b"Disallow: /\n" not in get(server, page.host, "/robots.txt")[1]


def test_a_hanging_host_never_answers_and_does_not_stop_the_others(server: SampleServer) -> None:
    waiting = http.client.HTTPConnection("127.0.0.1", int(server.port), timeout=0.4)
    waiting.request("GET", "/p/1.jpg", headers={"Host": HANGING_HOSTS[0]})
    page = page_that(Behaviour.not_found)
    assert get(server, page.host, page.path)[0].status == 404
    with pytest.raises(TimeoutError):
        waiting.getresponse()
    waiting.close()


def test_one_connection_serves_many_pages(server: SampleServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.port), timeout=10)
    for page in [p for p in WORLD.pages if p.behaviour is Behaviour.ok][:3]:
        connection.request("GET", page.path, headers={"Host": page.host})
        response = connection.getresponse()
        assert response.status == 200
        assert not response.will_close
        response.read()
    connection.close()


def test_drawn_pictures_are_kept_on_disk(tmp_path: Path) -> None:
    world = SampleWorld(4, 5)
    page = next(p for p in world.pages if p.behaviour is Behaviour.ok)
    with SampleServer(world, cache_dir=tmp_path) as first:
        body = get(first, page.host, page.path)[1]
    (stored,) = tmp_path.iterdir()
    with SampleServer(world, cache_dir=tmp_path) as second:
        assert get(second, page.host, page.path)[1] == body
    stored.write_bytes(b"spoilt")
    with SampleServer(world, cache_dir=tmp_path) as third:
        assert get(third, page.host, page.path)[1] == body


# -- a server of its own process -------------------------------------------------------------------------------------


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


@pytest.mark.processes
def test_a_server_in_its_own_process_serves_and_stops() -> None:
    with serve_in_subprocess(seed=4, scenes=5) as child:
        assert child.connect_to == {HOST_PATTERN: ("127.0.0.1", child.port)}
        page = SampleWorld(4, 5).pages[0]
        connection = http.client.HTTPConnection("127.0.0.1", child.port, timeout=20)
        connection.request("GET", page.path, headers={"Host": page.host})
        assert connection.getresponse().status == 200
        connection.close()
    assert not is_running(child.pid)


@pytest.mark.processes
def test_the_server_stops_when_its_parent_is_killed() -> None:
    code = (
        "import sys, time; from facecaption_ml.sample import serve_in_subprocess\n"
        "with serve_in_subprocess(scenes=3) as child:\n"
        "    print(child.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(child)
