"""CDNs as real HTTP servers on this machine, which answer as their documentation says, limits and errors included."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

T = TypeVar("T", bound="Fake")

TOKEN = "a-token-that-nobody-may-see"


@dataclass(frozen=True)
class Purged:
    """What a CDN has confirmed."""

    keys: tuple[str, ...] = ()
    soft: bool = False
    everything: bool = False


class Fake:
    """A CDN. `faults` are what the next requests meet, by name; `always` what each of the others meets."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.times: list[float] = []
        self.purged: list[Purged] = []
        self.faults: deque[str] = deque()
        self.always = ""
        self.left_early = 0
        self.url = ""
        self.token = TOKEN
        # Keys that it takes for bad.
        self.bad: set[str] = set()
        # Called when it confirms.
        self.watch: Callable[[Purged], None] = lambda _: None

    @property
    def keys(self) -> list[str]:
        """All keys that were confirmed, in order, each as often as it was."""
        return [key for purged in self.purged for key in purged.keys]

    def confirm(self, purged: Purged) -> None:
        self.watch(purged)
        self.purged.append(purged)

    async def fault(self, name: str, request: Request) -> Response:
        match name:
            case "hang":
                await request.body()
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                return Response(status_code=499)
            case "half":
                return Response(b"{", headers={"Content-Length": "1000"})
            case "long":
                return StreamingResponse(self.long(request), headers={"Content-Length": "10000000"})
            case "empty":
                return JSONResponse({})
            case "text":
                return JSONResponse({"msg": "an error occurred"})
            case "some":
                said = json.loads(bytes(self.answer(request, await request.body()).body))
                del self.purged[-1]
                return JSONResponse(dict(list(said.items())[: len(said) // 2]))
            case "html":
                return HTMLResponse("<h1>Welcome to this network</h1>")
            case "redirect":
                return RedirectResponse(self.url + "/elsewhere", status_code=307)
            case status:
                return JSONResponse({"msg": "no"}, status_code=int(status))

    async def long(self, request: Request) -> AsyncIterator[bytes]:
        """Ten megabytes that begin like an answer; after the first the client has to have gone."""
        yield b'{"status": "ok", "filling": "'
        for _ in range(16):
            yield b"x" * 65_536
        await request.body()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.left_early += 1

    async def purge(self, request: Request) -> Response:
        self.requests.append(request)
        self.times.append(time.monotonic())
        body = await request.body()
        fault = self.faults.popleft() if self.faults else self.always
        if fault:
            return await self.fault(fault, request)
        return self.answer(request, body)

    def answer(self, request: Request, body: bytes) -> Response:
        raise NotImplementedError

    async def elsewhere(self, request: Request) -> Response:
        self.requests.append(request)
        self.confirm(Purged(("elsewhere",)))
        return JSONResponse({"status": "ok"})

    def routes(self) -> list[Route]:
        raise NotImplementedError

    def app(self) -> Starlette:
        return Starlette(routes=[*self.routes(), Route("/elsewhere", self.elsewhere, methods=["POST", "GET", "PURGE"])])


class FakeFastly(Fake):
    """https://www.fastly.com/documentation/reference/api/purging/ for the service `SU1Z0isxPaozGVKXdv0eY`."""

    service = "SU1Z0isxPaozGVKXdv0eY"

    def routes(self) -> list[Route]:
        return [
            Route("/service/{service}/purge", self.purge, methods=["POST"]),
            Route("/service/{service}/purge_all", self.purge, methods=["POST"]),
        ]

    async def fault(self, name: str, request: Request) -> Response:
        if name == "429":
            now = time.time()
            headers = {
                "Date": formatdate(now, usegmt=True),
                "Fastly-RateLimit-Remaining": "0",
                "Fastly-RateLimit-Reset": str(int(now) + 1),
            }
            return JSONResponse({"msg": "You have exceeded your hourly purge limit"}, 429, headers)
        return await super().fault(name, request)

    def answer(self, request: Request, body: bytes) -> Response:
        if request.headers.get("fastly-key") != self.token:
            return JSONResponse({"msg": "Provided credentials are missing or invalid"}, 401)
        if request.path_params["service"] != self.service:
            return JSONResponse({"msg": "Record not found", "detail": "Couldn't find Service"}, 404)
        soft = request.headers.get("fastly-soft-purge") == "1"
        if request.url.path.endswith("/purge_all"):
            # Never soft, whatever is asked.
            self.confirm(Purged(everything=True))
            return JSONResponse({"status": "ok"})
        keys = json.loads(body)["surrogate_keys"]
        good = 0 < len(keys) <= 256 and len(set(keys)) == len(keys)
        if not good or not all(re.fullmatch(r"[\x21-\x7e]{1,1024}", key) for key in keys) or self.bad & set(keys):
            return JSONResponse({"msg": "Bad request", "detail": "a surrogate key is not valid"}, 400)
        self.confirm(Purged(tuple(keys), soft))
        return JSONResponse({key: f"108-1391560174-{number}" for number, key in enumerate(keys)})


class FakeCloudflare(Fake):
    """https://developers.cloudflare.com/api/resources/cache/methods/purge/ for the zone of 32 digits."""

    zone = "023e105f4ecef8ad9ca31a8372d0c353"
    most = 100

    def routes(self) -> list[Route]:
        return [Route("/client/v4/zones/{zone}/purge_cache", self.purge, methods=["POST"])]

    def said(self, status: int, code: int, message: str, **headers: str) -> Response:
        errors = [{"code": code, "message": message}]
        return JSONResponse({"success": False, "errors": errors, "messages": [], "result": None}, status, headers)

    async def fault(self, name: str, request: Request) -> Response:
        match name:
            case "429":
                return self.said(429, 10429, "Rate limited", **{"Retry-After": "1"})
            case "no-success":
                return self.said(200, 1134, "Unable to purge")
            case _:
                return await super().fault(name, request)

    def answer(self, request: Request, body: bytes) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return self.said(403, 10000, "Authentication error")
        if request.path_params["zone"] != self.zone:
            return self.said(404, 7003, "Could not route to the zone")
        asked = json.loads(body)
        if asked == {"purge_everything": True}:
            self.confirm(Purged(everything=True))
        else:
            tags = asked["tags"]
            if not 0 < len(tags) <= self.most:
                return self.said(400, 1094, "You may only purge 100 tags at once")
            if len({tag.lower() for tag in tags}) != len(tags):
                return self.said(400, 1095, "The same tag twice")
            if not all(re.fullmatch(r"[\x21-\x2b\x2d-\x7e]{1,1024}", tag) for tag in tags) or self.bad & set(tags):
                return self.said(400, 1096, "Invalid tag: " + " ".join(tags)[:50])
            self.confirm(Purged(tuple(tags)))
        return JSONResponse({"success": True, "errors": [], "messages": [], "result": {"id": self.zone}})


class FakeHook(Fake):
    """Somebody's own receiver of purges, at `/hook`."""

    def routes(self) -> list[Route]:
        return [Route("/hook", self.purge, methods=["POST", "PUT"])]

    def answer(self, request: Request, body: bytes) -> Response:
        said = json.loads(body)
        if self.bad & set(said["tags"]):
            return Response(status_code=422)
        self.confirm(Purged(tuple(said["tags"]), said["soft"], said["everything"]))
        return Response(status_code=204)


class FakeVarnish(Fake):
    """A Varnish with the VCL of docs/examples; `vcl` is whether it has it, else an app behind it answers."""

    vcl = True

    def routes(self) -> list[Route]:
        return [Route("/", self.purge, methods=["PURGE"])]

    def answer(self, request: Request, body: bytes) -> Response:
        if not self.vcl:
            return Response("what the app says")
        if any(len(name) + len(value) + 2 > 8_192 for name, value in request.headers.raw):
            return Response(status_code=400)
        if "xkey-everything" in request.headers:
            self.confirm(Purged(everything=True))
        elif "xkey-purge" in request.headers:
            self.confirm(Purged(tuple(re.split("[ ,]+", request.headers["xkey-purge"]))))
        elif "xkey-softpurge" in request.headers:
            self.confirm(Purged(tuple(re.split("[ ,]+", request.headers["xkey-softpurge"])), soft=True))
        else:
            return Response(status_code=400)
        return Response(headers={"xkey-purged": "1"})


@contextmanager
def serving(fake: T, **options: Any) -> Generator[T]:
    """The CDN behind a real server, with its `url`."""
    # With its protocol named, or asyncio leaves Nagle's algorithm on for what it accepts: 40 ms for each answer.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    scheme = "https" if "ssl_certfile" in options else "http"
    fake.url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        fake.app(),
        log_level="critical",
        ws="none",
        lifespan="off",
        http="h11",
        h11_max_incomplete_event_size=65_536,
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield fake
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
