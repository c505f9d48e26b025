"""As much of PromQL as the alert rules are written in, over samples that a test has taken.

It is not Prometheus: `rate` and `increase` are the difference of the first and the last sample of the window, without
extrapolation. As there, a series that is first seen at 1 has not increased.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Samples", "evaluate", "seconds_of"]

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

_TOKEN = re.compile(
    r'\s*(?:(?P<number>\d+(?:\.\d+)?)(?![\w])|(?P<name>[A-Za-z_]\w*)|(?P<text>"[^"]*")'
    r"|(?P<op>>=|<=|==|=~|!=|!~|[-+*/<>=(){}\[\],])|(?P<time>\d+[smh]))"
)
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}
_AGGREGATED: dict[str, Callable[[list[float]], float]] = {"sum": math.fsum, "min": min, "max": max}
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(duration: str) -> float:
    """The seconds of `5m`, `30s` or `1h`."""
    return float(duration[:-1]) * _UNITS[duration[-1]]


class Samples:
    """Values by name, labels and time."""

    def __init__(self) -> None:
        self._series: dict[str, dict[Labels, list[tuple[float, float]]]] = {}

    def add(self, at: float, name: str, labels: Mapping[str, str], value: float) -> None:
        """One sample; times rise."""
        series = self._series.setdefault(name, {}).setdefault(frozenset(labels.items()), [])
        series.append((at, value))

    def window(self, name: str, since: float, at: float) -> dict[Labels, list[float]]:
        """The values of each series of a name in a window of time, oldest first."""
        found = {
            labels: [value for moment, value in series if since <= moment <= at]
            for labels, series in self._series.get(name, {}).items()
        }
        return {labels: values for labels, values in found.items() if values}


def evaluate(query: str, samples: Samples, at: float) -> Vector:
    """What a query gives at a time."""
    parser = _Parser(query, samples, at)
    result = parser.expression()
    assert parser.peek() is None, f"not understood: {query} at {parser.peek()}"
    assert isinstance(result, dict)
    return result


class _Parser:
    def __init__(self, query: str, samples: Samples, at: float) -> None:
        self._samples = samples
        self._at = at
        self._tokens: list[str] = []
        place = 0
        while place < len(query.rstrip()):
            match = _TOKEN.match(query, place)
            assert match is not None, f"not understood: {query[place:]}"
            self._tokens.append(match.group().strip())
            place = match.end()

    def peek(self) -> str | None:
        """The next token."""
        return self._tokens[0] if self._tokens else None

    def _take(self, *wanted: str) -> str:
        token = self._tokens.pop(0)
        assert not wanted or token in wanted, (token, wanted)
        return token

    def expression(self) -> Vector | float:
        """`a and b`, loosest of all."""
        left = self._comparison()
        while self.peek() == "and":
            self._take()
            right = self._comparison()
            assert isinstance(left, dict)
            assert isinstance(right, dict)
            left = {labels: value for labels, value in left.items() if labels in right}
        return left

    def _comparison(self) -> Vector | float:
        left = self._product()
        while self.peek() in _COMPARED:
            holds = _COMPARED[self._take()]
            right = self._product()
            assert isinstance(left, dict)
            left = {labels: value for labels, value, other in _paired(left, right) if holds(value, other)}
        return left

    def _product(self) -> Vector | float:
        left = self._atom()
        while self.peek() == "/":
            self._take()
            right = self._atom()
            assert isinstance(left, dict)
            left = {labels: value / other if other else math.nan for labels, value, other in _paired(left, right)}
        return left

    def _atom(self) -> Vector | float:
        token = self._take()
        if token[0].isdigit():
            return float(token)
        if token in _AGGREGATED:
            return self._aggregated(_AGGREGATED[token])
        if token in ("rate", "increase"):
            self._take("(")
            name, matches, window = self._selector(self._take())
            self._take(")")
            return self._increased(name, matches, window, per_second=token == "rate")
        if token == "histogram_quantile":
            self._take("(")
            quantile = float(self._take())
            self._take(",")
            buckets = self.expression()
            self._take(")")
            assert isinstance(buckets, dict)
            return _quantiles(quantile, buckets)
        name, matches, window = self._selector(token)
        assert not window
        # As long as Prometheus looks back for a sample.
        found = self._samples.window(name, self._at - 300, self._at)
        return {labels: values[-1] for labels, values in found.items() if matches(dict(labels))}

    def _aggregated(self, joined: Callable[[list[float]], float]) -> Vector:
        self._take("by")
        self._take("(")
        kept: list[str] = []
        while (token := self._take()) != ")":
            if token != ",":
                kept.append(token)
        self._take("(")
        inner = self.expression()
        self._take(")")
        assert isinstance(inner, dict)
        groups: dict[Labels, list[float]] = {}
        for labels, value in inner.items():
            groups.setdefault(frozenset(pair for pair in labels if pair[0] in kept), []).append(value)
        return {labels: joined(values) for labels, values in groups.items()}

    def _selector(self, name: str) -> tuple[str, Callable[[dict[str, str]], bool], float]:
        wanted: list[tuple[str, str, str]] = []
        if self.peek() == "{":
            self._take()
            while (label := self._take()) != "}":
                if label != ",":
                    wanted.append((label, self._take(), self._take()[1:-1]))
        window = 0.0
        if self.peek() == "[":
            self._take()
            window = seconds_of(self._take())
            self._take("]")

        def matches(labels: dict[str, str]) -> bool:
            return all(_holds(labels.get(label, ""), op, value) for label, op, value in wanted)

        return name, matches, window

    def _increased(
        self, name: str, matches: Callable[[dict[str, str]], bool], window: float, *, per_second: bool
    ) -> Vector:
        found = self._samples.window(name, self._at - window, self._at)
        return {
            labels: (values[-1] - values[0]) / (window if per_second else 1)
            for labels, values in found.items()
            if len(values) > 1 and matches(dict(labels))
        }


def _holds(found: str, op: str, wanted: str) -> bool:
    same = re.fullmatch(wanted, found) is not None if "~" in op else found == wanted
    return same is not op.startswith("!")


def _paired(left: Vector, right: Any) -> list[tuple[Labels, float, float]]:
    if isinstance(right, float):
        return [(labels, value, right) for labels, value in left.items()]
    return [(labels, value, right[labels]) for labels, value in left.items() if labels in right]


def _quantiles(quantile: float, buckets: Vector) -> Vector:
    """The upper bound of the bucket in which the quantile is: an alert needs no more."""
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in buckets.items():
        bound = float(dict(labels)["le"].replace("+Inf", "inf"))
        groups.setdefault(frozenset(pair for pair in labels if pair[0] != "le"), []).append((bound, value))
    found: Vector = {}
    for labels, group in groups.items():
        group.sort()
        total = group[-1][1]
        if total:
            found[labels] = next(bound for bound, value in group if value >= quantile * total)
    return found
