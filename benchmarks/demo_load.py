"""Load on `crispseg demo`: clients that upload images and fetch masks, all at once, for some minutes.

    python benchmarks/demo_load.py [--run RUN] [--clients 8] [--seconds 120]

Starts a server of its own, of a tiny untrained model unless a run is given, and prints requests, failures and the
server's memory and disk at the start, in the middle and at the end. Needs Linux, for /proc, and `crispseg[demo]`.
"""

from __future__ import annotations

import argparse
import io
import json
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import httpx
import numpy as np
from PIL import Image

from crispseg import create_model

SIZES = ((192, 256), (384, 512), (720, 960), (1080, 1920))
"""Height and width of the images."""
File: TypeAlias = tuple[str, bytes, tuple[int, int]]
"""Name, content, and height and width of the image."""
PATIENCE = 300.0
"""Seconds for an answer."""


class Refused(Exception):
    """What the server says about a request that it does not answer."""


class Page:
    """What the page in a browser does, over plain HTTP: uploads, events of the queue, downloads."""

    def __init__(self, url: str) -> None:
        self.session = secrets.token_hex(6)
        self.http = httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False)
        config = self.http.get("config").json()
        self._events = {entry["api_name"]: entry["id"] for entry in config["dependencies"]}

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """Send a file; what later requests call it."""
        answer = self.http.post("gradio_api/upload", files={"files": (name, data)})
        _check(answer)
        return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def event(self, name: str, data: Sequence[Any]) -> list[Any]:
        """Trigger an event of the page and wait for its outputs."""
        body = {"data": list(data), "fn_index": self._events[name], "session_hash": self.session}
        _check(self.http.post("gradio_api/queue/join", json=body))
        with self.http.stream("GET", "gradio_api/queue/data", params={"session_hash": self.session}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise Refused(str(message["output"].get("error")))
                    return list(message["output"]["data"])
        raise Refused("the server closed the stream")

    def segment(self, upload: Any, model: str) -> list[Any]:
        """HTML of the result; the times; the download button."""
        return self.event("segment", [upload, model])

    def file(self, path: str) -> bytes:
        """A file of the server."""
        answer = self.http.get(f"gradio_api/file={path}")
        _check(answer)
        return answer.content


def mask_path(outputs: Sequence[Any]) -> str:
    """Where the mask of a result is."""
    value = outputs[2]["value"]
    return str(value["path"] if isinstance(value, dict) else value)


def _check(answer: httpx.Response) -> None:
    if answer.status_code != 200:
        raise Refused(f"{answer.status_code}: {answer.text}")


@dataclass
class Counts:
    """What a client did."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    megabytes: float = 0.0


def images(sizes: Sequence[tuple[int, int]], each: int) -> list[File]:
    """Smooth random images as files, PNG and JPEG in turn: name, content, height and width."""
    random, found = np.random.default_rng(7), []
    for index in range(each):
        for height, width in sizes:
            coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
            pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            kind = ("png", "jpeg")[(index + len(found)) % 2]
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, kind)
            found.append((f"image{index}_{height}.{kind}", file.getvalue(), (height, width)))
    return found


def client(url: str, model: str, files: Sequence[File], first: int, end: float) -> Counts:
    """Upload, segment and download, once and until the time is over; all clients' uploads differ."""
    counts = Counts()
    page = Page(url)
    turn = first
    while not counts.seconds or time.monotonic() < end:
        name, data, size = files[turn % len(files)]
        data += secrets.token_bytes(8)  # behind the picture, where no decoder looks: another file for the cache
        turn += 1
        start = time.monotonic()
        try:
            outputs = page.segment(page.upload(name, data), model)
            mask = np.array(Image.open(io.BytesIO(page.file(mask_path(outputs)))))
            assert mask.shape == size, f"the mask of {name} has the size {mask.shape}"
        except Exception as error:
            counts.failures.append(f"{name}: {type(error).__name__}: {error}"[:300])
        counts.seconds.append(time.monotonic() - start)
        counts.megabytes += len(data) / 1e6
    return counts


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory(process: int) -> tuple[float, float]:
    """Resident memory of a process in MB, now and at most."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1e3, int(lines["VmHWM"].split()[0]) / 1e3


def disk(folder: Path) -> tuple[float, int]:
    """MB in a folder, and the number of files."""
    sizes = []
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue  # just removed
    return sum(sizes) / 1e6, len(sizes)


def show(moment: str, process: int, folder: Path) -> None:
    now, most = memory(process)
    megabytes, files = disk(folder)
    print(
        f"{moment:12} resident {now:7.0f} MB (at most {most:.0f}), cache {megabytes:6.1f} MB in {files} files",
        flush=True,
    )


def put_load_on(
    url: str,
    model: str,
    process: int,
    files: Sequence[File],
    clients: int,
    seconds: float,
) -> int:
    """Put load on a server of this process id and print what came of it; the number of failures."""
    page = Page(url)
    folder = Path(page.upload(*files[0][:2])["path"]).parents[1]
    with suppress(Refused):  # the first costs more than all others
        page.segment(page.upload(*files[0][:2]), model)
    show("start", process, folder)
    start = time.monotonic()
    end = start + seconds
    with ThreadPoolExecutor(clients) as pool:
        pending = [pool.submit(client, url, model, files, 3 * number, end) for number in range(clients)]
        time.sleep(seconds / 2)
        show("middle", process, folder)
        counts = [each.result() for each in pending]
    show("end", process, folder)
    spent = [value for each in counts for value in each.seconds]
    failures = [value for each in counts for value in each.failures]
    print(
        f"{len(spent)} requests (upload, segmentation, mask) in {time.monotonic() - start:.0f} s, "
        f"{len(failures)} failures, {sum(each.megabytes for each in counts):.0f} MB uploaded"
    )
    print(f"a request took {statistics.median(spent):.1f} s in the median, {max(spent):.1f} s at most")
    for failure in failures[:5]:
        print(failure)
    return len(failures)


def run(argv: Sequence[str] | None = None) -> int:
    """Start a server and put load on it; 0 without failures, else 1."""
    parser = argparse.ArgumentParser(description="Load on crispseg demo.")
    parser.add_argument("--run", help="a run's or saved model's folder; by default a tiny untrained SFNet")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--images", type=int, default=4, help="different images of each size")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the sizes, smallest first")
    options = parser.parse_args(argv)
    files = images(SIZES[: options.sizes], options.images)
    with tempfile.TemporaryDirectory() as scratch:
        source = options.run
        if source is None:
            source = str(Path(scratch) / "tiny")
            tiny = create_model("sfnet", num_classes=12, backbone="test_efficientnet", pretrained=False, width=16)
            tiny.save_pretrained(source)
        port = free_port()
        url = f"http://127.0.0.1:{port}/"
        command = [sys.executable, "-m", "crispseg", "demo", source, "--port", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if url not in line:
                print(f"the server did not start: {line}")
                return 1
            print(f"{options.clients} clients, {options.seconds:g} s, images of {options.sizes} sizes as PNG and JPEG")
            name = Path(source).name
            failures = put_load_on(url, name, server.pid, files, options.clients, options.seconds)
        finally:
            server.terminate()
            server.wait(30)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run())
