"""Hits inside the server: cached pages are answered from the bytes of a request, before uvicorn makes a task for it.

    uvicorn app:app --http fastapi_cacheinval.uvicorn:CacheProtocol

`uvicorn.run(app, http=CacheProtocol)` does the same, and so does a gunicorn worker that is derived from uvicorn's and
has `CONFIG_KWARGS = {"http": "fastapi_cacheinval.uvicorn:CacheProtocol"}`. What it does not take goes to uvicorn's own
parser, byte for byte.
"""

from __future__ import annotations

import logging
from typing import Any, Final
from weakref import WeakKeyDictionary

try:
    from uvicorn.config import Config
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
    from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "CacheProtocol needs uvicorn 0.36 or later, and httptools: pip install 'fastapi-cacheinval[uvicorn]'"
    ) from error

from starlette.middleware.cors import CORSMiddleware

from fastapi_cacheinval.core.hit_fields import join
from fastapi_cacheinval.framework.cors_outside import run_through, varied_by, with_vary
from fastapi_cacheinval.framework.raw_hits import RawHit, RawHits
from fastapi_cacheinval.grammar.request_head import RequestHead, parse_request_head
from fastapi_cacheinval.middleware import CacheMiddleware
from fastapi_cacheinval.routes.outer_stack import OuterStack, outer_stack_of

__all__ = ["CacheProtocol"]

logger = logging.getLogger("fastapi_cacheinval.uvicorn")

_MOST_HEADS: Final = 1024
_LONGEST_HEAD: Final = 2048
_MOST_CLIENTS: Final = 1024
# A body of this size is handed to the transport as it is: joining would copy it.
_LARGE: Final = 16 * 1024
# Seconds by which a timer may be early.
_EARLY: Final = 0.001
# Seconds for which what stands outside the middleware is taken to be what it was.
_TRUSTED_FOR: Final = 0.001
# Seconds between two searches for a middleware that is not there, or has not started.
_FIND_EVERY: Final = 0.05

Client = tuple[str, int] | None


class _Front:
    """What one server's connections share: the middleware that answers, and the heads that were seen before."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._hits: RawHits | None = None
        self._stack: OuterStack | None = None
        self._proxy: Any = None
        self._cors = False
        # What `CORSMiddleware` outside adds to `Vary`.
        self._vary = b""
        self._told = False
        self._looked = float("-inf")
        self._root_path = ""
        self._heads: dict[bytes, RequestHead] = {}
        self._asked: dict[tuple[Client, tuple[tuple[bytes, bytes], ...]], tuple[str | None, Client]] = {}
        self._default: Any = None
        self._default_joined = b""

    def open(self, now: float) -> bool:
        """Whether it may answer; the way to the middleware is looked for again where it has changed."""
        if now - self._looked >= (_FIND_EVERY if self._hits is None else _TRUSTED_FOR):
            self._looked = now
            if self._stack is None or self._stack.watched.changed:
                self._find()
        return self._hits is not None

    def _find(self) -> None:
        self._hits = self._stack = None
        app: Any = self._config.loaded_app  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        stack = outer_stack_of(app, CacheMiddleware, (ProxyHeadersMiddleware, CORSMiddleware))
        middleware = stack.found
        if middleware is None:
            # An application makes its stack when it starts: this may be too early to say that there is none.
            if all(getattr(layer, "middleware_stack", layer) is not None for layer in stack.layers):
                self._tell(
                    "The app has no CacheMiddleware that can be seen from the server: CacheProtocol is uvicorn's own."
                )
            return
        hits: RawHits = middleware.raw_hits
        if not hits.ready:
            return
        if stack.strange and not hits.front_forced:
            self._tell(
                "CacheProtocol answers nothing itself: %s would be skipped by a hit. Move it inside CacheMiddleware. "
                "If it refuses nobody and tells no callers apart, CacheMiddleware(front=True) says so.",
                ", ".join(stack.strange),
            )
            return
        cors = [layer for layer in stack.layers if type(layer) is CORSMiddleware]
        vary = varied_by(cors)
        proxies = [layer for layer in stack.layers if type(layer) is ProxyHeadersMiddleware]
        if len(proxies) > 1 or vary is None:
            return
        self._proxy = proxies[0] if proxies else None
        self._cors, self._vary = bool(cors), vary
        self._root_path = stack.root_path or self._config.root_path
        self._asked.clear()
        self._stack = stack
        self._hits = hits
        hits.join_fields()

    def _tell(self, line: str, *args: object) -> None:
        if not self._told:
            self._told = True
            logger.warning(line, *args)

    def head_of(self, data: bytes) -> RequestHead | None:
        """The request at the beginning of what has come in, if it is a plain one."""
        head = self._heads.get(data)
        if head is None:
            head = parse_request_head(data)
            if head is not None and head.size == len(data) <= _LONGEST_HEAD:
                if len(self._heads) >= _MOST_HEADS:
                    self._heads.clear()
                self._heads[data] = head
        return head

    def answer(self, head: RequestHead, scheme: str, client: Client) -> tuple[RawHit, Client] | None:
        """The answer, and who is said to have asked; None where the request has to go the ordinary way."""
        hits = self._hits
        if hits is None or (self._cors and head.origin):
            return None
        if head.forwarded and self._proxy is not None:
            said, client = self._forwarded(head, client)
            scheme = said or scheme
        path = self._config.root_path + head.path
        hit = hits.answer(head, (head.host, path, head.query, scheme, self._root_path))
        if hit is not None and self._vary:
            hit = hit._replace(fields=with_vary(hit.fields, self._vary))
        return None if hit is None else (hit, client)

    def _forwarded(self, head: RequestHead, client: Client) -> tuple[str | None, Client]:
        """What the server's own layer for proxies makes of a request."""
        key = (client, head.forwarded)
        known = self._asked.get(key)
        if known is None:
            scope: dict[str, Any] = {"type": "http", "client": client, "scheme": None, "headers": [*head.forwarded]}
            run_through(self._proxy, _nothing, scope)
            known = scope["scheme"], scope["client"]
            if len(self._asked) >= _MOST_CLIENTS:
                self._asked.clear()
            self._asked[key] = known
        return known

    def default_fields(self, fields: Any) -> bytes:
        """The server's own fields, joined; it makes a new list every second."""
        if fields is not self._default:
            self._default, self._default_joined = fields, join(fields)
        return self._default_joined


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app behind a layer of which only its changes to the scope are wanted."""


_fronts: WeakKeyDictionary[Config, _Front] = WeakKeyDictionary()


class CacheProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, which answers front hits itself.

    It needs a `CacheMiddleware` outside of everything that a hit may not skip; without one it says so once, and does
    what uvicorn does. Where telemetry is recorded, every request takes the ordinary way.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        front = _fronts.get(self.config)
        if front is None:
            front = _fronts[self.config] = _Front(self.config)
        self._front = front
        # Whether the server's own parser is within a request, or has left HTTP.
        self._within = False
        self._plain = True
        self._answered_at = 0.0

    def on_message_begin(self) -> None:
        """The server's own parser has begun a request."""
        self._within = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It has read its head."""
        parser: Any = self.parser
        if parser.should_upgrade():
            self._plain = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """It has read all of it."""
        self._within = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client: what can be answered at once is, all else goes to the server's own parser."""
        if self._within or not self._plain or not self._idle() or not self._front.open(self.loop.time()):
            super().data_received(data)
            return
        while data:
            head = self._front.head_of(data)
            if head is None or self.flow.write_paused or not self._answered(head):
                super().data_received(data)
                return
            data = data[head.size :]
        self._wait_for_more()

    def _idle(self) -> bool:
        """Whether no request is under way on this connection, and the server takes more."""
        cycle: Any = self.cycle
        limit = self.limit_concurrency
        return (
            (cycle is None or cycle.response_complete)
            and not self.pipeline
            and (limit is None or (len(self.connections) < limit and len(self.tasks) < limit))
        )

    def _answered(self, head: RequestHead) -> bool:
        found = self._front.answer(head, self.scheme or "http", self.client)
        if found is None:
            return False
        hit, client = found
        if self.access_log:
            scope: Any = {"client": client, "path": self.config.root_path + head.path, "query_string": head.query}
            self.access_logger.info(
                '%s - "%s %s HTTP/%s" %d',
                get_client_addr(scope),
                head.method,
                get_path_with_query_string(scope),
                "1.1",
                hit.status,
            )
        default = self._front.default_fields(self.server_state.default_headers)
        start = b"".join((STATUS_LINE[hit.status], default, hit.fields, b"\r\n"))
        if len(hit.body) < _LARGE:
            self.transport.write(start + hit.body)
        else:
            # Not writelines(): in some releases of Python it never has the protocol pause (CVE-2024-12254).
            self.transport.write(start)
            self.transport.write(hit.body)
        self.server_state.total_requests += 1
        return True

    def _wait_for_more(self) -> None:
        # One timer for many answers: when it goes off, it looks when the last one was.
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for as long as the server allows."""
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > _EARLY:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
            return
        super().timeout_keep_alive_handler()
