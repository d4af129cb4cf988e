"""Whose requests the demo answers: those of its own page, asked for by a name of this machine."""

from __future__ import annotations

import ipaddress
import platform
import re
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse


class Guard:
    """An ASGI application that refuses what pages of other addresses ask of the one that it stands before.

    A page from elsewhere may send requests here (which say so in Origin), and may give its own name the address of this
    machine, by DNS, to count as one page with this (Host has that name then). An upload that breaks off is no error.

    Args:
        app: the application.
        names: by which browsers may call this machine, beside its own name, localhost and addresses in numbers.
    """

    def __init__(self, app: Any, names: Collection[str]) -> None:
        node = platform.node().lower()
        self.app, self.names = app, {"localhost", node, f"{node}.local", *(name.lower() for name in names)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it with status 403."""
        if scope["type"] == "websocket" and self.foreign(scope["headers"]):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and (reason := self.foreign(scope["headers"])):
            await PlainTextResponse(reason, 403)(scope, receive, send)
            return
        with suppress(ClientDisconnect):
            await self.app(scope, receive, send)

    def foreign(self, headers: Collection[tuple[bytes, bytes]]) -> str:
        """Why a request with these headers is refused; empty where it is not."""
        hosts = [value.decode("latin-1").lower() for key, value in headers if key == b"host"]
        origins = [value.decode("latin-1").lower() for key, value in headers if key == b"origin"]
        if len(hosts) != 1 or not self._ours(hosts[0]):
            return "This demo has other names; start it with --names to add one."
        if any(not re.fullmatch(rf"https?://{re.escape(hosts[0])}", origin) for origin in origins):
            return "This demo answers its own page only."
        return ""

    def _ours(self, host: str) -> bool:
        if not (found := re.fullmatch(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?", host)):
            return False
        name = found[1].strip("[]")
        if name in self.names:
            return True
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False
