"""Answers, speed and memory of a `Segmenter` that many threads share, and of the example server with many clients.

    python benchmarks/load.py threads --model nuclei --backends pytorch onnxruntime openvino
    python benchmarks/load.py server --file nuclei.onnx     # a file of `crispseg export`
    python benchmarks/load.py sizes --backends pytorch      # memory over images of 500 sizes

Images have thirty sizes. One in twenty is broken and must be refused. One in fifty is dropped: a client of the server
hangs up halfway, and a thread does not wait for its answer. Every answer is compared with that of a loop over the
images. `memory_mib` is the most that the process which segments takes in each tenth of the time.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from reporting import read_rows, write_rows

import crispseg
from crispseg.errors import CrispsegError
from crispseg.inference.device import processor_name

SIZES, MANY_SIZES = 30, 500
BROKEN, DROPPED = 20, 50
ROUNDS = 5
ROUND_THREADS = 8
ROWS = Path(__file__).resolve().with_name("load.csv")
HOST = "127.0.0.1"

Answer = Callable[[bytes], NDArray[np.uint8] | None]
"""Function that segments an encoded image, or returns None if it is refused."""


def encoded_images() -> list[bytes]:
    """Return PNG files of noise over smooth colours, of thirty sizes from 64 to 400 pixels."""
    generator = np.random.default_rng(0)
    files = []
    for height, width in generator.integers(64, 401, (SIZES, 2)):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).resize((width, height))
        noise = generator.integers(0, 32, (height, width, 3), np.uint8)
        picture, file = Image.fromarray(np.asarray(coarse) // 2 + noise), io.BytesIO()
        picture.save(file, "PNG")
        files.append(file.getvalue())
    return files


@dataclass
class Load:
    """Requests of many clients for a time, and what became of them."""

    images: list[bytes]
    answer: Answer
    drop: Callable[[bytes], None]
    expected: list[NDArray[np.uint8]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    lost: int = 0

    def loop(self) -> dict[str, str]:
        """Segment each image several times, one after the other, and return the columns of speed."""
        self.expected = [np.asarray(self.answer(content)) for content in self.images]
        start = time.perf_counter()
        for index in [*range(SIZES)] * ROUNDS:
            self.request(index, broken=False)
        columns = self.speed(time.perf_counter() - start)
        self.latencies.clear()
        return {f"loop_{name}": value for name, value in columns.items()}

    def speed(self, elapsed: float) -> dict[str, str]:
        """Return the columns of images a second and of percentiles of the time of an answer."""
        percentiles = np.percentile(self.latencies, [50, 99])
        return {
            "images_per_second": f"{len(self.latencies) / elapsed:.2f}",
            "p50_ms": f"{1000 * percentiles[0]:.0f}",
            "p99_ms": f"{1000 * percentiles[1]:.0f}",
        }

    def client(self, seed: int, until: float) -> None:
        """Send requests until a time."""
        generator = random.Random(seed)
        while time.perf_counter() < until:
            index, chance = generator.randrange(SIZES), generator.random()
            if chance < 1 / DROPPED:
                self.drop(self.images[index])
                continue
            self.request(index, broken=chance > 1 - 1 / BROKEN)

    def request(self, index: int, *, broken: bool) -> None:
        """Send one request and compare the answer."""
        content, start = self.images[index], time.perf_counter()
        try:
            labels = self.answer(content[: len(content) // 2] if broken else content)
        except Exception as error:  # an answer that is lost, whatever the reason
            print(f"lost: {error!r}", file=sys.stderr)
            self.lost += 1
            return
        self.latencies.append(time.perf_counter() - start)
        right = labels is None if broken else labels is not None and np.array_equal(labels, self.expected[index])
        self.wrong += not right

    def run(self, clients: int, seconds: float, process: psutil.Process) -> dict[str, str]:
        """Run clients and return a row."""
        loop, begun = self.loop(), time.perf_counter()
        memory = [process.memory_info().rss / 2**20]
        with ThreadPoolExecutor(clients) as pool:
            pending = [pool.submit(self.client, seed, begun + seconds) for seed in range(clients)]
            while len(memory) < 2 or time.perf_counter() < begun + seconds:
                time.sleep(0.25)
                memory.append(process.memory_info().rss / 2**20)
            for future in pending:
                future.result()
        elapsed = time.perf_counter() - begun
        tenths = [max(part) for part in np.array_split(memory, 10) if len(part)]
        half = len(tenths) // 2
        return {
            "clients": str(clients),
            "answers": str(len(self.latencies)),
            "wrong": str(self.wrong),
            "lost": str(self.lost),
            **self.speed(elapsed),
            **loop,
            "memory_mib": " ".join(f"{most:.0f}" for most in tenths),
            "second_half_growth_percent": f"{100 * (max(tenths[half:]) / max(tenths[:half]) - 1):.1f}",
        }


def over_threads(model: str, backend: str, clients: int, seconds: float) -> dict[str, str]:
    """Load one `Segmenter` from many threads, and compare the speed of eight threads with that of a loop."""
    segmenter = crispseg.Segmenter(model, backend="auto" if backend == "pytorch" else backend)

    def answer(content: bytes) -> NDArray[np.uint8] | None:
        try:
            with Image.open(io.BytesIO(content)) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except OSError:
            return None
        return np.asarray(segmenter(pixels).labels)

    images, given_up = encoded_images(), ThreadPoolExecutor(1)
    try:
        load = Load(images, answer, drop=lambda content: given_up.submit(answer, content))
        row = load.run(clients, seconds, psutil.Process())
    finally:
        given_up.shutdown(cancel_futures=True)
    ratios = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for content in images:
            answer(content)
        middle = time.perf_counter()
        with ThreadPoolExecutor(ROUND_THREADS) as pool:
            list(pool.map(answer, images))
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return {"way": f"threads, {backend}", **row, "speed_over_loop": f"{statistics.median(ratios):.2f}"}


def over_sizes(model: str, backend: str) -> dict[str, str]:
    """Segment a large image and then images of 500 sizes with one `Segmenter`, and return what memory grows by."""
    segmenter = crispseg.Segmenter(model, backend="auto" if backend == "pytorch" else backend)
    sizes = np.unique(np.random.default_rng(0).integers(64, 401, (MANY_SIZES + 100, 2)), axis=0)
    np.random.default_rng(1).shuffle(sizes)
    memory = []
    for height, width in [(400, 400), *sizes[:MANY_SIZES]]:
        segmenter(np.zeros((height, width, 3), np.uint8))
        memory.append(psutil.Process().memory_info().rss / 2**20)
    tenths = " ".join(f"{part.max():.0f}" for part in np.array_split(memory, 10))
    growth = {"memory_mib": tenths, "growth_mib": f"{memory[-1] - memory[0]:.0f}"}
    return {"way": f"{MANY_SIZES} sizes, {backend}", "clients": "1", "answers": str(len(memory)), **growth}


def over_http(file: Path, clients: int, seconds: float) -> dict[str, str]:
    """Load the example server."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    folder = Path(__file__).resolve().parents[1] / "examples/serve"
    command = [sys.executable, "-m", "uvicorn", "app:app", f"--port={port}", "--log-level=error"]
    environment = {**os.environ, "MODEL": str(file.resolve()), "MAX_REQUESTS": str(2 * clients)}
    server = subprocess.Popen(command, cwd=folder, env=environment)
    client = httpx.Client(base_url=f"http://{HOST}:{port}", timeout=120, limits=httpx.Limits(max_connections=clients))

    def answer(content: bytes) -> NDArray[np.uint8] | None:
        response = client.post("/segment", content=content)
        if response.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE:
            return None
        response.raise_for_status()
        return np.asarray(Image.open(io.BytesIO(response.content)))

    def drop(content: bytes) -> None:
        with socket.create_connection((HOST, port)) as connection:
            head = f"POST /segment HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content[: len(content) // 2])

    try:
        wait_for(client, server)
        row = Load(encoded_images(), answer, drop).run(clients, seconds, psutil.Process(server.pid))
    finally:
        client.close()
        server.terminate()
        server.wait()
    return {"way": "example server", **row, "speed_over_loop": ""}


def wait_for(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers; a `CrispsegError` if it ends."""
    while server.poll() is None:
        try:
            client.get("/health").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise CrispsegError("the server has ended; its message is above")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=["threads", "server", "sizes"])
    parser.add_argument("--model", default="nuclei", help="model of threads and sizes")
    parser.add_argument("--backends", nargs="+", default=["pytorch", "onnxruntime", "openvino"])
    parser.add_argument("--file", type=Path, help="ONNX file of the server")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--out", type=Path, default=ROWS)
    given = parser.parse_args()
    if given.way == "server" and given.file is None:
        parser.error("the server needs --file, an ONNX file of crispseg export")
    machine = {"processor": processor_name(torch.device("cpu")), "seconds": f"{given.seconds:g}"}
    if given.way == "server":
        rows = [over_http(given.file, given.clients, given.seconds)]
    elif given.way == "sizes":
        rows = [over_sizes(given.model, backend) for backend in given.backends]
    else:
        rows = [over_threads(given.model, backend, given.clients, given.seconds) for backend in given.backends]
    rows = [{**row, **machine} for row in rows]
    ways = {row["way"] for row in rows}
    write_rows(given.out, [row for row in read_rows(given.out) if row["way"] not in ways] + rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
