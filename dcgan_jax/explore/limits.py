"""Bounds what a request may send. Gradio bounds files alone, so that any other body would be read into memory."""

from collections.abc import Awaitable, Callable
from typing import Any

MAX_BODY = 2**20  # bytes; what the page sends has a few thousand

_Call = Callable[..., Awaitable[Any]]


class Limited:
    """An ASGI application that passes on requests whose body is as long as they say, and at most MAX_BODY bytes.

    Others are answered with 413 (too long), or 411 (they do not say how long), before their body is read.
    """

    def __init__(self, app: _Call):
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: _Call, send: _Call) -> None:
        status = _refused(dict(scope.get("headers", ())))
        if not status:
            return await self._app(scope, receive, send)
        await send({"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]})
        return await send({"type": "http.response.body", "body": f"expected at most {MAX_BODY} bytes".encode()})


def _refused(headers: dict[bytes, bytes]) -> int | None:
    """The status that requests with these headers are refused with."""
    if b"transfer-encoding" in headers:
        return 411
    length = headers.get(b"content-length", b"0")  # digits alone: others are an error of HTTP, which the server answers
    return 413 if int(length) > MAX_BODY else None
