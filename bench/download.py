"""Downloading: facecaption_ml.images against img2dataset 1.47, on one local server, whole processes, in turns.

The server stands on 64 loopback addresses (64 hosts, so that limits per host matter), answers after 50 ms and fails
for a quarter of the URLs: 404, 504 after 2 s of silence, a page instead of a picture. Both programs use 512 connections, do not
retry, check that every picture decodes, keep the received bytes in Parquet and record a SHA-256. Ours also asks every
host for its robots.txt. Rates count good pictures over the wall time of the process, start-up included.

The peer lives in its own environment:

    python3 -m venv /tmp/img2dataset && /tmp/img2dataset/bin/pip install -r bench/requirements-download.txt
    .venv/bin/python bench/download.py --peer /tmp/img2dataset/bin/python --out download.json
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from harness import machine, write_json
from PIL import Image

from facecaption_ml.markdown import markdown_table

HOSTS = 64
CONNECTIONS = 512
LATENCY_S = 0.05
HANG_S = 2.0
PEER_PROGRAM = """
import sys
from img2dataset import download
if __name__ == "__main__":
    urls, folder, decode = sys.argv[1:]
    checked = dict(skip_reencode=True) if decode == "decode" else dict(disable_all_reencoding=True)
    download(url_list=urls, output_folder=folder, input_format="parquet", url_col="url", caption_col="alt_text",
             output_format="parquet", processes_count=1, thread_count=512, resize_mode="no", timeout=10, retries=0,
             number_sample_per_shard=10_000, enable_wandb=False, **checked)
"""


def pictures(count: int = 64, side: int = 512) -> list[bytes]:
    """JPEGs of about 60 KB: smooth blobs with grain."""
    encoded = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        blobs = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side), 3)
        grain = random.normal(0, 8, (side, side, 1))
        image = Image.fromarray((np.asarray(blobs) + grain).clip(0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        encoded.append(buffer.getvalue())
    return encoded


class Site(asyncio.Protocol):
    """Just enough HTTP/1.1 for both clients; a protocol, as the server must not be the bottleneck."""

    def __init__(self, bodies: list[bytes]) -> None:
        self.bodies = bodies
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"\r\n\r\n"):
            head, self.received = self.received, b""
            path = head.split(b" ", 2)[1].decode()
            hangs = path.startswith("/hang")
            close = b"connection: close" in head.lower()
            asyncio.get_running_loop().call_later(HANG_S if hangs else LATENCY_S, self.reply, self.answer(path), close)

    def answer(self, path: str) -> bytes:
        kind, _, number = path[1:].partition("/")
        if kind == "image":  # bytes behind the end of a JPEG are ignored and make each picture's hash its own
            body = self.bodies[int(number) % len(self.bodies)] + number.encode()
            return b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        if kind == "page":
            body = b"<!DOCTYPE html><title>gone</title>" + b"<p>sorry</p>" * 400
            return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        if kind == "hang":
            return b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found"

    def reply(self, answer: bytes, close: bool) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            if close:
                self.transport.close()


def serve(port_sender: multiprocessing.connection.Connection) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(partial(Site, pictures()), "0.0.0.0", 0, backlog=4096)
        port_sender.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def write_manifest(path: Path, count: int, port: int) -> None:
    kinds = ["image"] * 9 + ["missing", "hang", "page"]  # 25 % bad
    random = np.random.default_rng(0)
    order = random.permutation(count)
    urls = [f"http://127.0.0.{1 + i % HOSTS}:{port}/{kinds[k % len(kinds)]}/{i}" for i, k in enumerate(order)]
    columns = {
        "sample_id": [hashlib.sha256(url.encode()).hexdigest()[:16] for url in urls],
        "url": urls,
        "alt_text": [f"picture {i}" for i in range(count)],
        "width": [None] * count,
        "height": [None] * count,
        "nsfw": [None] * count,
        "duplicate_url": [False] * count,
        "shard": ["00000"] * count,
    }
    from facecaption_ml.schemas import SCHEMAS

    pl.DataFrame(columns, schema=dict(SCHEMAS["source_manifest"])).write_parquet(path)


def fetch(manifest: Path, out: Path) -> None:
    """What the timed process of this project does."""
    from facecaption_ml.images import DownloadPolicy, fetch_raw_images

    policy = DownloadPolicy(connections=CONNECTIONS, retries=0, allow_private_addresses=True)
    fetch_raw_images(pl.read_parquet(manifest), policy).write_parquet(out, compression="snappy")


def timed(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds (children included) and peak MiB of the largest process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed:\n{errors[-2000:]}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def good_rows(folder: Path) -> int:
    tables = [pl.scan_parquet(path).select("status").collect() for path in sorted(folder.glob("*.parquet"))]
    return int(pl.concat(tables)["status"].is_in(["ok", "success"]).sum())


def measure(name: str, command: list[str], folder: Path, urls: int) -> dict[str, float | str]:
    folder.mkdir()
    wall, cpu, peak = timed(command)
    good = good_rows(folder)
    result = {"program": name, "wall_s": wall, "cpu_s": cpu, "peak_mib": peak, "good": good}
    return result | {"good_per_s": good / wall, "cpu_s_per_1000_urls": 1000 * cpu / urls}


def table(results: list[dict], ours: str) -> str:
    names = list(dict.fromkeys(row["program"] for row in results))
    keys = ("good", "wall_s", "good_per_s", "cpu_s_per_1000_urls", "peak_mib")
    medians = {n: {k: statistics.median(r[k] for r in results if r["program"] == n) for k in keys} for n in names}
    rows = []
    for name, row in medians.items():
        rate = medians[ours]["good_per_s"] / row["good_per_s"]
        cpu = medians[ours]["cpu_s_per_1000_urls"] / row["cpu_s_per_1000_urls"]
        numbers = (f"{row[key]:{form}}" for key, form in zip(keys, (".0f", ".2f", ".0f", ".2f", ".0f"), strict=True))
        rows.append([name, *numbers, f"{rate:.2f}x", f"{cpu:.2f}x"])
    heads = ("good images", "wall s", "good images/s", "CPU s per 1,000 URLs", "peak MiB", "our rate", "our CPU")
    return markdown_table(("program", *heads), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python of the environment with img2dataset; without it only ours is timed")
    parser.add_argument("--urls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write every measurement to this JSON file")
    parser.add_argument("--fetch", nargs=2, type=Path, metavar=("MANIFEST", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fetch:
        fetch(*arguments.fetch)
        return
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(sender,), daemon=True)
    server.start()
    port = receiver.recv()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        urls = root / "urls.parquet"
        write_manifest(urls, arguments.urls, port)
        for turn in range(arguments.rounds):
            folder = root / f"ours-{turn}"
            command = [sys.executable, __file__, "--fetch", str(urls), str(folder / "raw_images.parquet")]
            results.append(measure("facecaption_ml.images", command, folder, arguments.urls))
            for mode in ("decode", "no decode") if arguments.peer else ():
                folder = root / f"peer-{mode}-{turn}"
                command = [arguments.peer, "-c", PEER_PROGRAM, str(urls), str(folder), mode]
                results.append(measure(f"img2dataset, {mode}", command, folder, arguments.urls))
    server.terminate()
    write_json(arguments.out, {"urls": arguments.urls, "machine": machine(), "runs": results})
    print(table(results, "facecaption_ml.images"))


if __name__ == "__main__":
    main()
