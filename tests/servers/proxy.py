"""A TCP proxy, and a TLS terminator, whose faults a test switches while clients are connected."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, Literal

import trustme

from tests.servers.ports import free_port
from tests.servers.waiting import PATIENCE

Direction = Literal["to_server", "to_client"]
_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST


class _Gate:
    """One direction of all connections: open or shut, and how long things take to come through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.delay = 0.0
        self.bytes = 0


class _Link:
    """One accepted connection and the one that was opened for it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]
        self.forgotten = False

    async def run(self) -> None:
        try:
            # What falls into a black hole is not even connected.
            await self._proxy.gates["to_server"].open.wait()
            server = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        except OSError:
            self.abort()
            return
        self._writers.append(server[1])
        pumps = [
            asyncio.ensure_future(self._pump(self._client[0], server[1], self._proxy.gates["to_server"])),
            asyncio.ensure_future(self._pump(server[0], self._client[1], self._proxy.gates["to_client"])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in self._writers:
                writer.close()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: _Gate) -> None:
        """Pass on what comes in, each piece when its time has come; ends when both ends of this direction have."""
        clock = asyncio.get_running_loop().time
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            data = b"-"
            while data:
                try:
                    data = await reader.read(_CHUNK)
                except OSError:
                    data = b""
                waiting.put_nowait((clock() + gate.delay, data))

        reading = asyncio.ensure_future(read())
        try:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(due - clock())
                await gate.open.wait()
                if self.forgotten:
                    # Until it is cancelled.
                    await asyncio.Event().wait()
                if not data:
                    return
                gate.bytes += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            reading.cancel()

    def abort(self) -> None:
        for writer in self._writers:
            if writer.is_closing():
                # Over TLS, one that is closed has nothing left to ask for its socket.
                continue
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it may be closed already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Proxy:
    """A running proxy, with an event loop and a thread of its own; make one with `tcp_proxy()` or `tls_terminator()`.

    Its methods may be called from any thread and take effect before they return.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None, ca_file: Path | None = None) -> None:
        self.target = target  # the port that new connections lead to; may be changed at any time
        self.port = free_port()
        self.connections = 0  # accepted up to now
        self.ca_file = ca_file
        self._tls = tls
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {self.port}", daemon=True)
        self._thread.start()
        self.gates: dict[Direction, _Gate] = self._call(self._gates)
        self._run(self._listen())

    @property
    def url(self) -> str:
        """A Redis URL that leads through here."""
        scheme = "redis" if self._tls is None else "rediss"
        tls = "" if self.ca_file is None else f"?ssl_ca_certs={self.ca_file}"
        return f"{scheme}://127.0.0.1:{self.port}/0{tls}"

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return self._call(lambda: len(self._links))

    @property
    def bytes_to_server(self) -> int:
        """What was passed on to the server, in bytes."""
        return self.gates["to_server"].bytes

    @property
    def bytes_to_client(self) -> int:
        """What was passed on to clients, in bytes."""
        return self.gates["to_client"].bytes

    def refuse(self) -> None:
        """Stop listening: new connections are refused, open ones go on."""

        def close() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None

        self._call(close)

    def black_hole(self, *directions: Direction) -> None:
        """Pass nothing on and close nothing: new connections are accepted, and nothing comes of them.

        Both directions, or those named. What is sent is kept, and passed on after `heal`, as TCP does.
        """

        def shut() -> None:
            for direction in directions or tuple(self.gates):
                self.gates[direction].open.clear()

        self._call(shut)

    def forget(self) -> None:
        """Pass nothing on for the connections that are open now, and say nothing to them; new ones are served."""

        def forget() -> None:
            for link in self._links:
                link.forgotten = True

        self._call(forget)

    def delay(self, *, to_server: float = 0.0, to_client: float = 0.0) -> None:
        """Let everything that comes in from now on take so many seconds longer, per direction."""

        def change() -> None:
            self.gates["to_server"].delay = to_server
            self.gates["to_client"].delay = to_client

        self._call(change)

    def reset(self) -> None:
        """Reset all open connections (RST), both sides; what was kept for them is lost."""

        async def abort() -> None:
            tasks = list(self._links.values())
            for link, task in self._links.items():
                link.abort()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._run(abort())

    def heal(self) -> None:
        """End all faults: listen, pass on, without delay."""

        def unlock() -> None:
            for gate in self.gates.values():
                gate.open.set()

        self.delay()
        self._call(unlock)
        if self._server is None:
            self._run(self._listen())

    def close(self) -> None:
        """Stop listening, reset what is open, end the thread."""
        self.refuse()
        self.reset()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    @staticmethod
    def _gates() -> dict[Direction, _Gate]:
        return {"to_server": _Gate(), "to_client": _Gate()}

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            await link.run()
        except asyncio.CancelledError:  # by reset(); what asyncio does with one that is cancelled differs by version
            return
        finally:
            del self._links[link]

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def _call(self, action: Callable[[], Any]) -> Any:
        async def act() -> Any:
            return action()

        return self._run(act())


@contextlib.contextmanager
def tcp_proxy(target: int) -> Generator[Proxy]:
    """A proxy on a free port of 127.0.0.1 that leads to this port, without faults to begin with."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


@contextlib.contextmanager
def tls_terminator(target: int) -> Generator[Proxy]:
    """A proxy that speaks TLS to clients, as 127.0.0.1 and localhost; its `url` names the file with its CA."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with tempfile.TemporaryDirectory(prefix="tls-") as directory:
        ca_file = Path(directory) / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        proxy = Proxy(target, context, ca_file)
        try:
            yield proxy
        finally:
            proxy.close()
