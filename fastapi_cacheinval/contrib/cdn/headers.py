"""What each CDN is told of a response: its tags and its lifetime, in fields that the CDN reads and takes off again."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fastapi_cacheinval import ConfigurationError, KeepFor
from fastapi_cacheinval.contrib.cdn.keys import path_key
from fastapi_cacheinval.contrib.cdn.requests import CDN

__all__ = ["CDNHeaders", "cloudflare_headers", "fastly_headers", "varnish_headers"]

Field = tuple[bytes, bytes]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_KEY = re.compile(r"[\x21-\x7e]+")
_VARY = frozenset({b"", b"accept-encoding"})
# The tags of the responses that are handed out most: what is joined once serves many hits.
_REMEMBERED = 4_096


@dataclass(frozen=True, kw_only=True)
class CDNHeaders:
    """What a CDN is told, for `CacheMiddleware(downstream=…)`; for Fastly, Cloudflare and Varnish there are functions.

    - `cdn`: the adapter that purges it, which names the tags; responses also carry `path_key` of their path, and the
      adapter's `all_tag`, where it has one.
    - `tags`, `lifetime`: the names of the fields, lower-case; `separator` stands between two tags.
    - `most_bytes`: of all tags together, separators included; `line_bytes`: of one line of them; `most_tags`: how many.
    - `asked_by`: the request field that shows that a request came through the CDN, None for every request; `secret`
      is the value that it must have, compared in constant time, None for any.
    - `forbid`: the value of `lifetime` for what may not be kept; `private` says so in `Cache-Control` as well.
    - `heeds_age`: whether it counts the `Age` of a response against its lifetime (RFC 9111 section 4.2); one that may
      not is told what is left of it.
    - `heeds_vary`: whether it keeps variants apart by more than `Accept-Encoding`; what varies is not kept otherwise.

    A response that has more tags than fit is not kept there. Raises `ConfigurationError`, naming the field.
    """

    cdn: CDN
    tags: str
    lifetime: str
    separator: str = " "
    most_bytes: int = 16_000
    line_bytes: int = 16_000
    most_tags: int = 10_000
    asked_by: str | None
    secret: str | None = field(default=None, repr=False)
    forbid: str = "no-store"
    private: bool = False
    heeds_age: bool = True
    heeds_vary: bool = True
    _lines: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.cdn, CDN):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"cdn is the adapter that purges the CDN, not {self.cdn!r}.")
        for name in ("tags", "lifetime", "asked_by"):
            value: Any = getattr(self, name)
            if (value is not None or name != "asked_by") and (
                not isinstance(value, str) or _NAME.fullmatch(value) is None
            ):
                raise ConfigurationError(f"{name} is the name of a field in lower case, not {value!r}.")
        for name in ("private", "heeds_age", "heeds_vary"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} is True or False, not {getattr(self, name)!r}.")
        if self.separator not in (" ", ","):
            raise ConfigurationError(f"separator is a space or a comma, not {self.separator!r}.")
        if self.secret is not None and (not self.secret or not self.secret.isascii() or self.asked_by is None):
            raise ConfigurationError("secret is the ASCII text that the field named by asked_by must have.")
        if not 0 < self.line_bytes <= self.most_bytes:
            raise ConfigurationError(
                f"line_bytes is at least 1 and at most most_bytes, {self.most_bytes!r}, not {self.line_bytes!r}."
            )
        object.__setattr__(self, "_lines", lru_cache(_REMEMBERED)(self._lines_of))

    def asks(self, request: Sequence[Field]) -> bool:
        """Whether a request came through the CDN."""
        if self.asked_by is None:
            return True
        name, secret = self.asked_by.encode(), None if self.secret is None else self.secret.encode()
        # Of several lines any counts: a client who sends one too must not hide the CDN's.
        return any(
            secret is None or hmac.compare_digest(value.strip(), secret) for key, value in request if key == name
        )

    def allowing(self, sent: Sequence[Field], tags: tuple[str, ...], path: str, keep: KeepFor) -> list[Field] | str:
        """The lifetime and the tags; `vary` or `tags` where the CDN cannot be told all it needs."""
        if not self.heeds_vary and any(
            name == b"vary" and not {each.strip().lower() for each in value.split(b",")} <= _VARY
            for name, value in sent
        ):
            return "vary"
        lines: tuple[Field, ...] | None = self._lines(tags, path)
        if lines is None:
            return "tags"
        age = 0 if self.heeds_age else next((int(value) for name, value in sent if name == b"age"), 0)
        said = b"max-age=%d" % max(0, keep.seconds - age)
        if keep.stale_while_revalidate:
            said += b", stale-while-revalidate=%d" % keep.stale_while_revalidate
        if keep.stale_if_error:
            said += b", stale-if-error=%d" % keep.stale_if_error
        return [(self.lifetime.encode(), said), *lines]

    def forbidding(self, sent: Sequence[Field]) -> list[Field]:
        """The fields, with what says that the CDN is not to keep the answer."""
        fields = list(sent)
        if self.private and not any(name == b"cache-control" and b"private" in value.lower() for name, value in sent):
            fields.append((b"cache-control", b"private"))
        return [*fields, (self.lifetime.encode(), self.forbid.encode())]

    def _lines_of(self, tags: tuple[str, ...], path: str) -> tuple[Field, ...] | None:
        """The lines that hold the keys of all the tags and of the path; None where they do not fit."""
        everything: str | None = getattr(self.cdn, "all_tag", None)
        of_all = () if everything is None else (everything,)
        keys = list(dict.fromkeys(self.cdn.key(tag) for tag in (*of_all, *tags, path_key(path))))
        if len(keys) > self.most_tags or any(self.separator in key or _KEY.fullmatch(key) is None for key in keys):
            return None
        values = list(_packed(keys, self.separator, self.line_bytes))
        if sum(map(len, values)) + len(values) - 1 > self.most_bytes or max(map(len, values)) > self.line_bytes:
            return None
        return tuple((self.tags.encode(), value.encode()) for value in values)


def _packed(keys: list[str], separator: str, most: int) -> Iterator[str]:
    line = ""
    for key in keys:
        if line and len(line) + 1 + len(key) > most:
            yield line
            line = ""
        line = f"{line}{separator}{key}" if line else key
    yield line


def fastly_headers(cdn: CDN, *, asked_by: str | None = "fastly-client-ip", secret: str | None = None) -> CDNHeaders:
    """`Surrogate-Key` and `Surrogate-Control` for Fastly, to whoever comes with the field that Fastly sets.

    Fastly reads the first 16 KB of keys, and takes its default lifetime where it is told none: what may not be kept is
    also `private` in `Cache-Control`, the one word that it never keeps.
    """
    return CDNHeaders(
        cdn=cdn,
        tags="surrogate-key",
        lifetime="surrogate-control",
        asked_by=asked_by,
        secret=secret,
        forbid="private, no-store, max-age=0",
        private=True,
    )


def cloudflare_headers(cdn: CDN, *, asked_by: str | None = "cf-ray", secret: str | None = None) -> CDNHeaders:
    """`Cache-Tag` and `Cloudflare-CDN-Cache-Control` for Cloudflare, to whoever comes with the field that it sets.

    Cloudflare reads 16 KB of tags and at most 1,000 of them. It does not tell variants apart, so that what varies by
    more than `Accept-Encoding` is not kept there. Its documentation does not say that it counts `Age`: it is told what
    is left of a lifetime, which is too short at worst.
    """
    return CDNHeaders(
        cdn=cdn,
        tags="cache-tag",
        separator=",",
        lifetime="cloudflare-cdn-cache-control",
        asked_by=asked_by,
        secret=secret,
        most_tags=1_000,
        heeds_age=False,
        heeds_vary=False,
    )


def varnish_headers(cdn: CDN, *, asked_by: str | None = "x-varnish", secret: str | None = None) -> CDNHeaders:
    """`xkey` and `Surrogate-Control` for a Varnish with the VCL of docs/cdn.md, to whoever comes with its field.

    In lines of at most 7,000 bytes, since Varnish refuses one over `http_resp_hdr_len`, 8 KiB, and 16,000 bytes
    together, half of its `http_resp_size`.
    """
    return CDNHeaders(
        cdn=cdn, tags="xkey", lifetime="surrogate-control", line_bytes=7_000, asked_by=asked_by, secret=secret
    )
