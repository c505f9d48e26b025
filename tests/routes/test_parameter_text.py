"""A parameter that a refusal has its author move into a dependency is read, checked and converted as it was."""

# No postponed annotations: the handlers name classes and callables of their own test.

import re
from datetime import datetime
from inspect import Parameter, Signature
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, SecretStr, StringConstraints

from fastapi_cacheinval import CacheMiddleware, ConfigurationError, HTTPCache, PartitionBy, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio


def refused(table: Any, app: FastAPI) -> Any:
    with pytest.raises(ConfigurationError) as caught:
        table(app).audit()
    return caught.value


def moved(table: Any, app: FastAPI, parameter: str) -> FastAPI:
    """An app whose handler takes the parameter as the lines of the message say, which are code, and start."""
    advice = refused(table, app).advice
    (definition,) = re.findall(rf"(def {parameter}_of_caller\(.*?: return {parameter})\.", advice)
    (taken,) = re.findall(rf"take ({parameter}: .*?, Depends\({parameter}_of_caller\)\])\.", advice)
    (line,) = re.findall(r"cached\(\.\.\., (partition_by=.*)\)\.$", advice)
    made: dict[str, Any] = {**globals(), "PartitionBy": PartitionBy}
    exec(f"{definition}\ndef handler({taken}) -> str:\n    return str({parameter})\n", made)
    mended = FastAPI(openapi_url=None)
    mended.get("/it", dependencies=[eval(f"cached(ttl=60, {line})", made)])(made["handler"])
    table(mended).audit()
    return mended


@pytest.mark.parametrize("kind", ["cookie", "header"])
def test_a_credential_that_the_handler_reads_is_moved_by_the_lines_of_the_message(table, kind) -> None:
    """The dependency, the parameter and the policy that it says are code, and start."""

    def by_cookie(session: Annotated[str, Cookie()]) -> str:
        return session

    def by_header(session: Annotated[str, Header(alias="authorization")]) -> str:
        return session

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(by_cookie if kind == "cookie" else by_header)
    moved(table, app, "session")


class SessionCookies(BaseModel):
    session: str = ""


class AllCookies(BaseModel):
    model_config = ConfigDict(extra="allow")
    session: str = ""


class TokenHeaders(BaseModel):
    x_token: str = ""


class ManyHeaders(BaseModel):
    x_token: list[str] = []
    since: datetime | None = None
    share: float = 0
    pin: SecretStr | None = None
    names: list[str] | None = None


def verified(token: str) -> str:
    if not token.startswith("t-"):
        raise ValueError("unknown token")
    return token.removeprefix("t-")


Token = Annotated[str, Header(alias="x-token"), AfterValidator(verified)]


def text(who: Annotated[str, Cookie()]) -> str:
    return who


def number(who: Annotated[int, Cookie(ge=1)] = 3) -> str:
    return str(who)


def optional(who: Annotated[str | None, Cookie()] = None) -> str:
    return str(who)


def by_default(*, who: str = Header("t-d", alias="X-Token", min_length=2)) -> str:
    return who


def cookies(who: Annotated[SessionCookies, Cookie()]) -> str:
    return str(who)


def fields(who: Annotated[TokenHeaders, Header()]) -> str:
    return str(who)


async def many(who: Annotated[ManyHeaders, Header()]) -> str:
    return str(who)


def choices(who: Annotated[str, Header(validation_alias=AliasChoices("X-Lang", "X-Token"))]) -> str:
    return who


def listed(who: Annotated[list[str] | None, Header(alias="x-token")] = None) -> str:
    return str(who)


def moment(who: Annotated[datetime, Header(alias="x-token")]) -> str:
    return str(who)


def secret(who: Annotated[SecretStr, Header(alias="x-token")]) -> str:
    return str(who)


def checked(*, who: Annotated[str, Header(alias="x-token"), AfterValidator(verified)] = "t-a") -> str:
    return who


def constrained(who: Annotated[str, StringConstraints(pattern="^t-"), Header(alias="x-token")]) -> str:
    return who


def aliased(who: Token) -> str:
    return who


class View:
    def method(self, who: Token) -> str:
        # A line of the source stands at the margin.
        return (
            who
            + """
"""[1:]
        )


DECLARED = [
    text, number, optional, by_default, cookies, fields, many, choices, listed, moment, secret, checked, constrained,
    aliased, View().method,
]  # fmt: skip


@pytest.mark.parametrize("handler", DECLARED, ids=lambda handler: handler.__name__)
async def test_a_parameter_is_moved_as_it_is_declared(table, handler: Any) -> None:
    """The dependency reads, checks and converts what the handler did; the lines of the message are code, and start."""
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(handler)
    mended = moved(table, app, "who")
    plain = FastAPI(openapi_url=None)
    plain.get("/it")(handler)
    for value in ("t-alice", "t-bob", "junk", "7", "0", "2026-01-01T00:00:00", None):
        sent = {} if value is None else {"x-token": value, "cookie": f"who={value}; session={value}"}
        alone, answer = await ask(plain, "/it", headers=sent), await ask(mended, "/it", headers=sent)
        assert (answer.status_code, answer.body) == (alone.status_code, alone.body)


def mapped(who: Annotated[dict[str, str], Header(alias="x-token")]) -> str:
    return str(who)


def test_a_parameter_that_no_key_can_hold_is_moved_and_needs_a_key(table) -> None:
    """No line is right before its author has written one."""
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(mapped)
    advice = refused(table, app).advice
    assert "def who_of_caller(who: Annotated[dict[str, str], Header(alias='x-token')]) -> dict[str, str]" in advice
    assert "Give it a key that tells its values apart: PartitionBy(who_of_caller, key=...)." in advice
    assert "line works" not in advice


def without_a_source() -> Any:
    made: dict[str, Any] = {"Annotated": Annotated, "Header": Header}
    exec("def handler(x_token: Annotated[str, Header(min_length=9)] = 'd'): return x_token", made)
    return made["handler"]


def of_another_signature() -> Any:
    def handler(x_token: Any) -> Any:
        return x_token

    annotation = Annotated[str, Header(min_length=9)]
    parameter = Parameter("x_token", Parameter.KEYWORD_ONLY, annotation=annotation)
    handler.__signature__ = Signature([parameter])  # type: ignore[attr-defined]
    return handler


@pytest.mark.parametrize("make", [without_a_source, of_another_signature])
def test_a_parameter_without_a_text_is_moved_with_its_annotation(table, make: Any) -> None:
    """A text of the cache's own could check less than the handler did."""
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(make())
    advice = refused(table, app).advice
    assert (
        "Move 'x_token' with its annotation and default into a dependency x_token_of_caller that returns it" in advice
    )
    assert "def x_token_of_caller" not in advice
    assert "This line works: cached(..., partition_by=x_token_of_caller)." in advice


async def test_the_parts_of_a_model_keep_callers_apart(table) -> None:
    """Lists, moments, fractions and secrets are none of a key themselves; what is made of them is, with or without."""

    def handler(who: Annotated[ManyHeaders, Header()]) -> str:
        return str(who)

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(handler)
    (line,) = re.findall(r"cached\(\.\.\., (partition_by=.*)\)\.$", refused(table, app).advice)

    def who_of_caller(who: Annotated[ManyHeaders, Header()]) -> ManyHeaders:
        return who

    mended = FastAPI(openapi_url=None)
    policy = eval(f"cached(ttl=60, {line})", {**globals(), "who_of_caller": who_of_caller})

    @mended.get("/it", dependencies=[policy])
    def it(who: Annotated[ManyHeaders, Depends(who_of_caller)]) -> str:
        return f"{who} {who.pin and who.pin.get_secret_value()}"

    mended.add_middleware(CacheMiddleware, cache=HTTPCache())
    callers: list[list[tuple[str, str]]] = [
        [],
        *([(name, value)] for name in ("x-token", "pin", "names") for value in ("a", "b")),
        [("x-token", "a"), ("x-token", "b")],
        [("since", "2026-01-01T00:00:00")],
        [("since", "2026-01-02T00:00:00")],
        [("share", "0.5")],
    ]
    answers = [(await ask(mended, "/it", headers=headers)) for headers in callers]
    assert len({answer.body for answer in answers}) == len(callers)
    for headers, before in zip(callers, answers, strict=True):
        again = await ask(mended, "/it", headers=headers)
        assert_hit(again)
        assert again.body == before.body


def test_a_model_that_is_handed_all_cookies_is_not_moved(table) -> None:
    """Its key would have a part of what it may read."""

    def handler(who: Annotated[AllCookies, Cookie()]) -> str:
        return who.session

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(handler)
    advice = refused(table, app).advice
    assert "Take the single cookies" in advice
    assert "line works" not in advice
