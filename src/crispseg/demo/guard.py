"""What a request may ask of the server: a list of what the page needs, and a bound on what is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from crispseg.demo.uploads import Limits, inside, trim

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

API = "/gradio_api/"
PAGES = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
ASSETS = ("/assets/", "/static/", "/svelte/")
CALLS = ("info", "app_id", "startup-events", "theme.css", "upload_progress", "queue/data", "cancel", "reset")
CALL_PREFIXES = ("heartbeat/", "call/", "queue/join")
UPLOAD, FILE = "upload", "file="

OVERHEAD = 2**16
"""Bytes of an upload around its file."""
JSON_BYTES = 2**20
"""Of any other request."""


class Guard:
    """ASGI middleware between the network and Gradio.

    Gradio serves more than this page needs: proxies and downloads of URLs, editors, monitoring, request histories. What
    is not listed here is answered by 404, so that a new route of a new version is closed until somebody lists it.
    Requests are bounded as a whole; only files under `folder`, where uploads are, can be named or read.

    Args:
        app: to guard.
        folder: of uploads and masks.
        limits: of an upload and of the folder.
    """

    def __init__(self, app: App, *, folder: Path, limits: Limits) -> None:
        self.app, self.folder, self.limits = app, folder, limits

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await (self.app(scope, receive, send) if scope["type"] == "lifespan" else _close(scope, send))
            return
        refusal = self.refusal(scope["method"], scope["path"])
        if refusal is None and scope["method"] == "POST":
            uploads = scope["path"].rstrip("/") == API + UPLOAD
            most = self.limits.bytes + OVERHEAD if uploads else JSON_BYTES
            length = _length(scope)
            if length is None:
                refusal = 411, "state the length of what you send (Content-Length)"
            elif length > most:
                await _drain(receive)
                refusal = 413, self.too_large(uploads)
            elif not uploads:
                body = await _body(receive)
                refusal = self.refused_body(body)
                receive = _replayed(body, receive)
            else:
                try:
                    await self.app(scope, receive, send)
                finally:  # one that breaks off leaves a file too
                    await asyncio.to_thread(trim, self.folder, self.limits)
                return
        if refusal is not None:
            await _answer(send, *refusal)
            return
        await self.app(scope, receive, send)

    def refusal(self, method: str, path: str) -> tuple[int, str] | None:
        """Status and message for a path that is not served; None where it is."""
        nothing = 404, "there is no such page here"
        if method not in ("GET", "HEAD", "POST", "OPTIONS"):
            return 405, "only GET and POST are answered"
        if path in PAGES or path.startswith(ASSETS):
            return nothing if ".." in unquote(path) else None
        if not path.startswith(API):
            return nothing
        call = path.removeprefix(API)
        if call.startswith(FILE):
            if inside(call.removeprefix(FILE), self.folder):
                return None
            return 403, "only uploaded images and their masks can be read, no other file of the server and no URL"
        if call.rstrip("/") in (*CALLS, UPLOAD) or call.startswith(CALL_PREFIXES):
            return None
        return nothing

    def refused_body(self, body: bytes) -> tuple[int, str] | None:
        """The same for a body of JSON: files that it names must have been uploaded."""
        try:
            values = json.loads(body or b"null")
        except (ValueError, RecursionError):
            return 400, "this is no JSON"
        for path in _paths(values):
            if not isinstance(path, str) or not inside(path, self.folder):
                return (
                    400,
                    "only uploaded images can be named, no other file of the server and no URL; upload one first",
                )
        return None

    def too_large(self, uploads: bool) -> str:
        """The message for a body that is."""
        if uploads:
            return f"the upload is larger than {self.limits.megabytes:g} MB, the limit of this demo; shrink the image"
        return f"the request is larger than {JSON_BYTES:,} bytes; upload images as files"


def _paths(values: Any) -> Iterator[Any]:
    """What stands under "path" anywhere in parsed JSON, as Gradio looks for files in it."""
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "path" in value and value["path"] is not None:
                yield value["path"]
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _length(scope: Message) -> int | None:
    stated = dict(scope["headers"]).get(b"content-length", b"")
    if dict(scope["headers"]).get(b"transfer-encoding"):
        return None
    return int(stated) if stated.isdigit() else None


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


async def _drain(receive: Receive) -> None:
    """Read what was sent and forget it: clients look for an answer only after they have sent all."""
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already, then what else comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"detail": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _close(scope: Message, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
