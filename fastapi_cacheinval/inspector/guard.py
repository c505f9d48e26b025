"""Who may see the inspector: the guard, and the rule for a development machine that has none."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Scope

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["Door", "Guard", "refuse_options", "why_not_local"]

Guard = Callable[..., object]
"""A function of the request, or any FastAPI dependency; plain or `async`. It raises to refuse."""

# What a proxy adds: behind one, a client that seems to be on this machine may be anywhere.
_FORWARDED = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
_PASSED = 204


class Door:
    """Asks a guard as FastAPI asks a dependency, with nothing of the request's body.

    The guard's own dependencies end before the request is answered: an open stream of events keeps no database session.
    Raises `ConfigurationError` for a guard that FastAPI cannot call.
    """

    def __init__(self, guard: Guard) -> None:
        # Not `Annotated`, which FastAPI would have to read from text: `guard` is no name of this module.
        async def admit(answer: Any = Depends(_with_request(guard))) -> Response:  # noqa: B008
            # None is what a dependency without a result gives; `return user.is_admin` must not let everybody in.
            if answer is not None and not answer:
                raise HTTPException(403, "The guard of the inspector refuses this request.")
            return Response(status_code=_PASSED)

        try:
            route = APIRoute("/", admit, response_model=None)
        except Exception as error:
            raise ConfigurationError(
                f"guard is a function of the Request, or a dependency as FastAPI calls it, not {guard!r}: {error}"
            ) from error
        self._ask: ASGIApp = AsyncExitStackMiddleware(route.app)

    async def refusal(self, scope: Scope) -> Response | None:
        """None where the guard lets a request pass, else what it answers.

        `HTTPException` is answered by the app's own handler where it has one. Other errors of the guard are raised.
        """
        said: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            said.append(message)

        try:
            await self._ask({**scope}, receive, send)
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        except RequestValidationError:
            return JSONResponse({"error": "The guard of the inspector lacks a part of the request."}, 422)
        if said and said[0]["status"] == _PASSED:
            return None
        return _answer_of(said)


def _answer_of(said: list[Message]) -> Response:
    """What an exception handler has sent, as one response."""
    answer = Response(b"".join(message.get("body", b"") for message in said[1:]), said[0]["status"] if said else 403)
    answer.raw_headers = [(name, value) for name, value in (said[0].get("headers", ()) if said else ())]
    return answer


def _with_request(guard: Guard) -> Guard:
    """A guard as FastAPI can call it: a single parameter without an annotation, as a lambda's, is the request."""
    try:
        parameters = list(inspect.signature(guard).parameters.values())
    except (TypeError, ValueError):
        return guard
    empty = inspect.Parameter.empty
    if len(parameters) != 1 or parameters[0].annotation is not empty or parameters[0].default is not empty:
        return guard

    async def asked(request: Request) -> object:
        answer = guard(request)
        return await answer if inspect.isawaitable(answer) else answer

    return asked


def why_not_local(scope: Scope) -> str | None:
    """Why a request may come from another machine; None where it plainly comes from this one to this one.

    The name in `Host` counts too: a page on the internet can have its own name lead to 127.0.0.1.
    """
    server, client = scope.get("server"), scope.get("client")
    if not server or not _is_loopback(server[0]):
        return "the server does not listen on a loopback address"
    if not client or not _is_loopback(client[0]):
        return "the client is not on this machine"
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if any(name.lower() in _FORWARDED for name, _ in headers):
        return "a proxy has passed it on"
    hosts = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
    if len(hosts) != 1 or not _names_loopback(hosts[0]):
        return "its host is not a name of this machine, such as localhost"
    return None


def _is_loopback(address: object) -> bool:
    try:
        return ip_address(str(address)).is_loopback
    except ValueError:
        return False


def _names_loopback(host: str) -> bool:
    if host.startswith("["):
        return _is_loopback(host[1:].partition("]")[0])
    name = host.partition(":")[0].lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def refuse_options(cache: object, guard: object, debug: object) -> None:
    """Raise one error with all that is wrong with the options."""
    faults: list[str] = []
    if not isinstance(cache, HTTPCache):
        faults.append(f"Inspector takes the HTTPCache that it shows, not {cache!r}.")
    if not isinstance(debug, bool):
        faults.append(f"debug is True or False, not {debug!r}.")
    if guard is not None and not callable(guard):
        faults.append(f"guard is a function of the Request, or a dependency, not {guard!r}.")
    if guard is None and debug is not True:
        faults.append(
            "Inspector needs a guard: a function of the Request, or a dependency, that refuses whoever may not see and "
            "purge the cache. On your own machine Inspector(cache, debug=True) does without."
        )
    if faults:
        raise ConfigurationError(" ".join(faults))
