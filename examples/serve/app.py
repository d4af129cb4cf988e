"""Serve a file of `crispseg export` over HTTP, without PyTorch and crispseg. See README.md.

MODEL=mine.onnx uvicorn app:app --port 8000
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request, Response
from PIL import Image, ImageOps
from starlette.requests import ClientDisconnect

MODEL = os.environ.get("MODEL", "model.onnx")
THREADS = int(os.environ.get("THREADS", "0"))
"""Threads of ONNX Runtime; 0 for one per core."""
MAX_BYTES = int(os.environ.get("MAX_BYTES", "20000000"))
MAX_PIXELS = int(os.environ.get("MAX_PIXELS", "2000000"))
"""Largest number of pixels of an image, and of a batch."""
MAX_REQUESTS = int(os.environ.get("MAX_REQUESTS", "32"))
"""Largest number of requests that are read, wait or are segmented."""
BATCH = int(os.environ.get("BATCH", "8"))
WAIT = float(os.environ.get("WAIT", "0.005"))
"""Seconds that the first image of a batch waits for others."""
UPLOAD_SECONDS = 30
MIN_SIDE = 32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
GREY_MODES = ("1", "L", "LA")
MODES = (*GREY_MODES, "P", "PA", "RGB", "RGBA")
Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is checked instead


class Model:
    """Exported file in ONNX Runtime, with its preprocessing."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # these grow with the number of image sizes
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "crispseg" not in metadata:
            raise SystemExit(f"{path} is no file of crispseg export; give an .onnx file that it wrote")
        self.about = json.loads(metadata["crispseg"])
        if self.about["in_chans"] not in (1, 3):
            raise SystemExit(
                f"{path} needs images of {self.about['in_chans']} channels; this server reads RGB and grey"
            )
        self.takes_pixels = self.about.get("input") == "uint8"
        self.mean, self.std = (np.float32(255) * np.float32(self.about[key]) for key in ("mean", "std"))
        if self.about["in_chans"] == 1:
            self.mean, self.std = self.mean.mean(), self.std.mean()

    def read(self, content: bytes) -> np.ndarray:
        """Return an uploaded image as RGB `(H, W, 3)`, of 16 bits if the file scales them."""
        values, value_range = decoded(content), self.about.get("value_range")
        scaled = sixteen_bits if self.takes_pixels and value_range else eight_bits
        return np.broadcast_to(scaled(values, value_range), (*values.shape[:2], 3))

    def labels(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """Return the class ids `(H, W)` of RGB images of one size."""
        height, width = images[0].shape[:2]
        border = [(0, 0), (0, max(0, MIN_SIDE - height)), (0, max(0, MIN_SIDE - width)), (0, 0)]
        batch = np.pad(np.stack(images), border, mode="edge")  # (N, H, W, 3)
        if not self.takes_pixels:
            batch = self.normalized(batch.astype(np.float32))
        output = self.session.run(None, {"images": batch})[0]
        output = output if self.about["output"] == "labels" else output.argmax(1).astype(np.uint8)
        return list(output[:, :height, :width])

    def normalized(self, batch: np.ndarray) -> np.ndarray:
        """Return normalised images `(N, C, H, W)` of RGB `(N, H, W, 3)`."""
        if self.about["in_chans"] == 1:
            batch = batch.mean(axis=3, keepdims=True)
        return np.ascontiguousarray(((batch - self.mean) / self.std).transpose(0, 3, 1, 2))  # (N, C, H, W)

    def png(self, labels: np.ndarray) -> bytes:
        """Return a palette PNG whose values are the class ids."""
        picture, file = Image.fromarray(labels), io.BytesIO()
        picture.putpalette([value for color in self.about["palette"] for value in color])
        picture.save(file, "PNG", compress_level=1)
        return file.getvalue()


def eight_bits(values: np.ndarray, value_range: Any) -> np.ndarray:
    """Return an image `(H, W, C)` as uint8; the range "image" is that of 98.8 % of its own values.

    Without a range, 16-bit values need as many bits as the smallest camera that holds 99.8 % of them.
    """
    if values.dtype == np.uint8 and value_range != "image":
        return values
    step = math.ceil(math.sqrt(values.shape[0] * values.shape[1] / 65536))
    low, high = np.percentile(values[::step, ::step], (1, 99.8))
    if value_range == "image":
        value_range = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
    elif value_range is None:
        value_range = 0, next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    low, high = value_range
    return np.rint(((values.astype(float) - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)


def sixteen_bits(values: np.ndarray, value_range: Any) -> np.ndarray:
    """Return an image `(H, W, C)` as uint16; 8 bits are stretched over a fixed range, as the file expects."""
    if values.dtype == np.uint8 and value_range != "image":
        low, high = value_range
        values = np.rint(low + values * ((high - low) / 255))
    return values.astype(np.uint16)


def decoded(content: bytes) -> np.ndarray:
    """Return an uploaded image upright, `(H, W, 1)` or RGB `(H, W, 3)`, of 8 or 16 bits."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            pixels = picture.width * picture.height
            if pixels > MAX_PIXELS:
                raise HTTPException(413, f"the image has {pixels:,} pixels; send at most {MAX_PIXELS:,}")
            if picture.mode != "I;16" and (picture.mode not in MODES or ";16" in str(picture.tile)):
                reason = f"the image has mode {picture.mode} or 16-bit colours"
                raise HTTPException(415, f"{reason}; send grey of 8 or 16 bits, or RGB of 8 bits")
            upright = ImageOps.exif_transpose(picture)
            if picture.mode != "I;16":
                upright = upright.convert("L" if picture.mode in GREY_MODES else "RGB")
            return np.asarray(upright).reshape(upright.height, upright.width, -1)
    except HTTPException:
        raise
    except Exception as error:  # decoders raise almost anything
        reason = f"the image cannot be read ({type(error).__name__}); send a {', '.join(FORMATS)} file as the body"
        raise HTTPException(415, reason) from None


async def uploaded(request: Request, limit: int) -> bytes | None:
    """Return the body of a request, or None if it is larger than `limit`; it is read to its end, or clients fail."""
    content, size = bytearray(), 0
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size <= limit:
                    content += part
    except TimeoutError:
        raise HTTPException(408, f"the upload took more than {UPLOAD_SECONDS} seconds; send it again") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client has ended the upload") from None  # an ordinary end, not a defect
    return bytes(content) if size <= limit else None


Waiting = tuple[np.ndarray, asyncio.Future[np.ndarray]]


def groups(batch: list[Waiting]) -> Iterator[list[Waiting]]:
    """Yield images of one size, at most `MAX_PIXELS` together."""
    ordered = sorted(batch, key=lambda entry: entry[0].shape)
    for (height, width, _), same in groupby(ordered, key=lambda entry: entry[0].shape):
        entries, count = list(same), max(1, MAX_PIXELS // (height * width))
        yield from (entries[start : start + count] for start in range(0, len(entries), count))


async def segment_batches(model: Model, queue: asyncio.Queue[Waiting]) -> None:
    """Segment the images of a queue for ever; images that arrive within `WAIT` seconds form a batch."""
    loop, one_thread = asyncio.get_running_loop(), ThreadPoolExecutor(1)  # freed memory stays with its thread
    while True:
        batch = [await queue.get()]
        try:
            async with asyncio.timeout(WAIT):
                while len(batch) < BATCH:
                    batch.append(await queue.get())
        except TimeoutError:
            pass
        for group in groups(batch):
            try:
                images = [image for image, _ in group]
                results: list[Any] = await loop.run_in_executor(one_thread, model.labels, images)
            except Exception as error:
                results = [error] * len(group)
            for (_, future), result in zip(group, results, strict=True):
                if future.done():  # cancelled
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the file, and segment batches while the server runs."""
    state = app.state
    state.model, state.queue, state.requests = Model(MODEL), asyncio.Queue(), 0
    state.worker = asyncio.create_task(segment_batches(state.model, state.queue))
    yield
    state.worker.cancel()


app = FastAPI(title="crispseg", lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, Any]:
    """Return the classes of the model and the number of current requests."""
    if app.state.worker.done():
        raise HTTPException(500, "no images are segmented; restart the server")
    return {"status": "ok", "classes": app.state.model.about["class_names"], "requests": app.state.requests}


@app.post("/segment", response_class=Response)
async def segment(request: Request) -> Response:
    """Return a palette PNG of class ids for the image file in the body."""
    state = app.state
    if state.requests >= MAX_REQUESTS:
        await uploaded(request, 0)
        raise HTTPException(503, f"{MAX_REQUESTS} requests are in progress; try again", {"Retry-After": "1"})
    state.requests += 1
    try:
        content = await uploaded(request, MAX_BYTES)
        if content is None:
            raise HTTPException(413, f"the body is too large; send at most {MAX_BYTES:,} bytes")
        image = await asyncio.to_thread(state.model.read, content)
        result: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        state.queue.put_nowait((image, result))
        labels = await result
        return Response(await asyncio.to_thread(state.model.png, labels), media_type="image/png")
    finally:
        state.requests -= 1
