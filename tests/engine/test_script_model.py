"""The script on a real server against its model in plain Python: every reply and the whole state, call by call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from random import Random
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.client import PubSub

from fastapi_cacheinval.bus.call import Call, Said, log_keys
from fastapi_cacheinval.bus.entries import decode_line, encode_payload
from fastapi_cacheinval.bus.looks import PAGE_LUA, WAIT_LUA
from fastapi_cacheinval.bus.replication import SETTLE_LUA
from fastapi_cacheinval.bus.script import LUA
from simulation.answers import Answer, State, Written
from simulation.server import LogServer
from tests.servers.valkey import valkey

_KEYS = log_keys("model")
_TAGS = tuple(f"t{number}".encode() for number in range(6))
_NAMES = {"state": _KEYS.state, "log": _KEYS.log, "tags": _KEYS.tags, "acks": _KEYS.acks}
_CALLERS = ("", "a", "b", "c")

Pick = Callable[[Sequence[Any]], Any]


class Clients(NamedTuple):
    """One that may do everything, one that may not read the replication id, and a subscription."""

    open: redis.Redis
    blind: redis.Redis
    listener: PubSub


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with (
        valkey() as server,
        redis.Redis.from_url(server.unix_url) as client,
        redis.Redis.from_url(server.unix_url, username="blind", password="any") as blind,
        client.pubsub() as listener,
    ):
        client.execute_command("ACL", "SETUSER", "blind", "on", "nopass", "~*", "&*", "+@all", "-info")
        listener.subscribe(_KEYS.channel)
        listener.get_message(timeout=5)
        listener.psubscribe(_KEYS.applied + b":*")
        listener.get_message(timeout=5)
        # The model knows of no server without a past, whose first term counts as an old one.
        client.set("theirs", 1)
        yield Clients(client, blind, listener)


def _call(**fields: Any) -> Call:
    defaults: dict[str, Any] = {"replica": "", "term": 0, "term_nonce": "", "seq": 0, "nonce": "", "bound": 2.0}
    given: dict[str, Any] = {**defaults, "channel": _KEYS.channel, **fields}
    return Call(**given)


def _message(written: Written) -> bytes:
    header = ("1", written.term, written.term_nonce, written.seq, written.nonce, written.at)
    return " ".join(map(str, header)).encode() + b"\n" + written.payload


class Pair:
    """A real server and the model, told the same."""

    def __init__(self, clients: Clients) -> None:
        self.client = self.caller = clients.open
        self.blindfolded, self.listener = clients.blind, clients.listener
        self.client.flushall()
        self.fresh = map("f{}".format, count(1))
        self.model = LogServer(self._run(), _message)
        self.known: dict[str, tuple[int, str, int, str]] = dict.fromkeys(_CALLERS, (0, "", 0, ""))
        self.kept: tuple[dict[str, bytes], LogServer] = ({}, self.model.copy(""))
        self.sets: list[bytes] = []

    def _run(self) -> str:
        return self.client.info("replication")["master_replid"]

    # -- steps ----------------------------------------------------------------------------------

    def call(self, pick: Pick) -> None:
        caller = pick(_CALLERS)
        term, term_nonce, seq, nonce = self.known[caller]
        wrong = pick((None,) * 12 + ("term", "term nonce", "seq", "nonce", "stranger"))
        if wrong == "term":
            term += pick((-1, 1, 3))
        elif wrong == "term nonce":
            term_nonce = pick(("x", "z"))
        elif wrong == "seq":
            seq = max(0, seq + pick(range(-3, 3)))
        elif wrong == "nonce":
            nonce = "y"
        elif wrong == "stranger":
            term, term_nonce, seq, nonce = 0, "", 0, ""
        tags, soft = (), False
        if pick(range(3)):
            tags = tuple({pick(_TAGS): None for _ in range(pick(range(5)))})
            soft = pick((False, True))
        payload = encode_payload(tuple(tag.decode() for tag in tags), soft=soft) if tags else b""
        pending: tuple[bytes, ...] = ()
        if self.sets and not payload:
            pending = tuple(pick(self.sets) for _ in range(pick(range(3))))
        elif caller and pick((False, True)):
            pending = (_KEYS.pending(caller, f"n{len(self.sets)}"),)
            self.sets.append(*pending)
        call = _call(
            replica=caller,
            term=max(0, term),
            term_nonce=term_nonce,
            seq=seq,
            nonce=nonce,
            fresh=next(self.fresh),
            bound=pick((2.0, 0.5)),
            widest=pick((0, 0, 1_000_000, 7_000_000)),
            most_lines=pick((1, 2, 4, 100)),
            most_bytes=pick((1, 500, 3_000, 100_000)),
            page_bytes=pick((0, 1, 100, 500, 100_000)),
            most_tags=pick((2, 4, 100, 100)),
            life=pick((5, 60)),
            soft=soft,
            payload=payload,
            tags=tags,
            pending=pending,
        )
        answer = self.send(call)
        if pick(range(4)):
            self.known[caller] = answer[1:5]

    def send(self, call: Call) -> Answer:
        """One call of both, and a comparison of what they say."""
        said = Said.read(self.caller.eval(LUA, 4, *_KEYS[:4], *call.arguments()))
        expected = self.model.script(
            said.at,
            replica=call.replica,
            term=call.term,
            term_nonce=call.term_nonce,
            seq=call.seq,
            nonce=call.nonce,
            fresh=call.fresh,
            bound=int(call.bound * 1_000_000),
            widest=call.widest,
            most_lines=call.most_lines,
            most_bytes=call.most_bytes,
            page_bytes=call.page_bytes,
            most_tags=call.most_tags,
            life=int(call.life),
            soft=call.soft,
            payload=call.payload or None,
            tags=call.tags,
            pending=call.pending,
        )
        assert Answer(*said[:6], tuple(said.missed), said.more, said.pending, said.widest) == expected
        if call.payload:
            for key in call.pending:
                # It goes by itself, but not before this walk is over.
                assert self.client.exists(key) == self.client.persist(key)
        for key in self.model.told:
            told, _, nonce = key.rpartition(b":")
            message = self.listener.get_message(timeout=5)
            assert message is not None
            assert (message["channel"], message["data"]) == (told, nonce)
        if call.payload:
            published = self.listener.get_message(timeout=5)
            assert published is not None
            assert published["data"] == self.model.published
            assert decode_line(self.model.published).seq == expected.seq
        return expected

    def page(self, pick: Pick) -> None:
        state = self.model.state
        nonce = pick(("x", "" if state is None else state.term_nonce))
        last = 5 if state is None else state.seq
        up_to, limit = max(0, last - pick((0, 0, 0, 1, 2, 5, 9, -2))), pick((1, 3, 100))
        real = self.client.eval(PAGE_LUA, 2, _KEYS.tags, _KEYS.state, nonce, up_to, limit)
        expected = self.model.page(nonce, up_to, limit)
        if expected is None:
            assert real is None
            return
        assert real is not None
        members = real[2]
        got = [(self._member(tag), int(score)) for tag, score in zip(members[::2], members[1::2], strict=True)]
        assert (int(real[0]), int(real[1]), tuple(got)) == expected

    @staticmethod
    def _member(raw: bytes) -> tuple[bool, bytes]:
        assert raw[:1] in (b"h", b"s")
        return raw[:1] == b"s", raw[1:]

    def wait(self, pick: Pick) -> None:
        state = self.model.state
        term, nonce = (0, "") if state is None else (state.term, state.term_nonce)
        if pick((False, True)):
            term += pick(range(2))
            nonce = pick((nonce, "x"))
        last = 5 if state is None else state.seq
        seq, bound = max(0, last - pick((0, 1, 2, -1))), pick((0, 2_000_000))
        before = self._time()
        real = self.caller.eval(WAIT_LUA, 2, _KEYS.state, _KEYS.acks, term, nonce, seq, bound)
        after = self._time()
        # It does not say when it looked; between two looks of ours it had one of these answers.
        expected = {tuple(self.model.wait(now, term, nonce, seq, bound)) for now in (before, after)}
        behind, there, young, long, least = map(int, real)
        assert least <= seq
        if not young and least >= 0 and least < seq:
            # A look for the last line that all have read finds nobody behind it.
            assert self.model.wait(after, term, nonce, least, bound)[0] == 0
        assert long == max(bound, 0 if state is None else state.widest)
        assert (behind, there) in expected
        assert young <= behind

    def _time(self) -> int:
        seconds, micros = self.client.time()
        return seconds * 1_000_000 + micros

    def settle(self, pick: Pick) -> None:
        """Somebody has had an answer confirmed, of this term or of another."""
        state = self.model.state
        nonce = pick(("x", "" if state is None else state.term_nonce))
        at = int(self.caller.eval(SETTLE_LUA, 1, _KEYS.state, nonce))
        self.model.settle(at, nonce)

    def evict(self, pick: Pick) -> None:
        name = pick(tuple(_NAMES))
        self.client.delete(_NAMES[name])
        self.model.lose(name)

    def change_replication_id(self, pick: Pick) -> None:
        self.client.execute_command("DEBUG", "CHANGE-REPL-ID")
        if self.caller is self.client:
            self.model.run = self._run()

    def blindfold(self, pick: Pick) -> None:
        """From here on the caller may not read the replication id, or may again."""
        sees = self.caller is self.blindfolded
        self.caller = self.client if sees else self.blindfolded
        self.model.run = self._run() if sees else ""

    def keep(self, pick: Pick) -> None:
        dumps = {name: self.client.dump(key) for name, key in _NAMES.items()}
        self.kept = ({name: dump for name, dump in dumps.items() if dump}, self.model.copy(self.model.run))

    def roll_back(self, pick: Pick) -> None:
        dumps, model = self.kept
        self.client.delete(*_NAMES.values())
        for name, dump in dumps.items():
            self.client.restore(_NAMES[name], 0, dump)
        pending, self.model = self.model.pending, model.copy(self.model.run)
        self.model.pending = pending

    def time_passes(self, pick: Pick) -> None:
        """The times that are kept are moved into the past, which is what waiting would come to."""
        by = pick((1, 2, 5, 6, 20, 21, 60)) * 1_000_000 + pick((0, 500_000))
        self.shift(by)

    def clock_back(self, pick: Pick) -> None:
        """The times that are kept are moved into the future: the server's clock is set back."""
        self.shift(-pick((1, 5, 30, 3600)) * 1_000_000)

    def shift(self, by: int) -> None:
        """All times that are kept, in microseconds."""
        state = self.model.state
        if state is not None:
            state.marked, state.pruned, state.opened = state.marked - by, state.pruned - by, state.opened - by
            times: dict[Any, Any] = {"marked": state.marked, "pruned": state.pruned, "opened": state.opened}
            self.client.hset(_KEYS.state, mapping=times)
        for name, (read, seen, bound) in list(self.model.acks.items()):
            self.model.acks[name] = read, seen - by, bound
            self.client.hset(_KEYS.acks, name, f"{read} {seen - by} {bound}")

    # -- the whole state ------------------------------------------------------------------------

    def compare(self) -> None:
        pipe = self.client.pipeline()
        pipe.hgetall(_KEYS.state)
        pipe.xrange(_KEYS.log)
        pipe.zrange(_KEYS.tags, 0, -1, withscores=True)
        pipe.hgetall(_KEYS.acks)
        for key in _NAMES.values():
            pipe.ttl(key)
        state, log, tags, acks, *lives = pipe.execute()
        for key in self.sets:
            assert self.client.smembers(key) == {name.encode() for name in self.model.pending.get(key, ())}
        model = self.model
        assert state == self._state_fields(model.state)
        expected_log = enumerate(model.log, model.base + 1)
        assert log == [
            (f"{seq}-0".encode(), {b"n": nonce.encode(), b"m": message}) for seq, (nonce, message) in expected_log
        ]
        expected_tags: list[tuple[bytes, float]] = [
            ((b"s" if soft else b"h") + tag, float(seq))
            for seq, (soft, tag) in sorted((seq, member) for member, seq in model.tags.items())
        ]
        if model.tags_of is not None:
            expected_tags.append((b"!" + model.tags_of.encode(), float("inf")))
        assert tags == expected_tags
        expected_acks = {name.encode(): " ".join(map(str, ack)).encode() for name, ack in model.acks.items()}
        if model.acks_of is not None:
            expected_acks[b"!"] = model.acks_of.encode()
        assert acks == expected_acks
        # None of them goes by itself.
        assert set(lives) <= {-1, -2}

    @staticmethod
    def _state_fields(state: State | None) -> dict[bytes, bytes]:
        if state is None:
            return {}
        names = {"term_nonce": "tnonce"}
        fields = {field: getattr(state, field) for field in State.__slots__}
        if fields.pop("settled"):
            fields["settled"] = 1
        fields["eighths"] = "".join(f" {seq}" for seq in state.eighths)
        return {names.get(name, name).encode(): str(value).encode() for name, value in fields.items()}


# What happens often, and what befalls a server.
_OFTEN = (*(Pair.call,) * 8, *(Pair.page,) * 2, Pair.wait, Pair.settle, Pair.time_passes)
_SELDOM = (Pair.evict, Pair.change_replication_id, Pair.blindfold, Pair.keep, *(Pair.roll_back,) * 2, Pair.clock_back)


def _run(clients: Clients, pick: Pick, steps: int) -> None:
    pair = Pair(clients)
    for _ in range(steps):
        step = pick(_SELDOM) if pick(range(12)) == 11 else pick(_OFTEN)
        step(pair, pick)
        pair.compare()


@settings(max_examples=40)
@given(data=st.data())
def test_the_model_and_the_script_give_the_same_replies_and_keep_the_same_state(
    clients: Clients, data: st.DataObject
) -> None:
    """Calls, wrong numbers and nonces, lost keys, roll-backs, other replication ids, long waits, no right to INFO."""
    _run(clients, lambda choices: data.draw(st.sampled_from(choices)), 15)


@pytest.mark.parametrize("seed", range(12))
def test_the_two_agree_on_long_walks_too(clients: Clients, seed: int) -> None:
    """The same for 300 steps each, so that lines are trimmed, tags forgotten, replicas let go of, floors raised."""
    _run(clients, Random(seed).choice, 300)


def test_forgetting_goes_on_in_steps_of_a_thousand(clients: Clients) -> None:
    """Neither what is over the limit nor what is too old is forgotten in one long call."""
    pair = Pair(clients)
    tags = tuple(f"tag{number}".encode() for number in range(2_500))
    pair.send(_call(fresh="f1"))
    pair.send(_call(fresh="f2", payload=b"p", tags=tags))
    pair.compare()
    for number, most_tags in enumerate((1_200, 1_200, 1_200, 1_200, 900, 900), 3):
        # What is over the limit is looked for where something is added.
        pair.send(_call(fresh=f"f{number}", most_tags=most_tags, payload=b"p", tags=(b"one more",)))
        pair.compare()
    assert len(pair.model.tags) == 900
    pair.send(_call(fresh="f10", payload=b"q", tags=tags))
    for number in range(11, 22):
        pair.shift(61_000_000)
        pair.send(_call(fresh=f"f{number}"))
        pair.compare()
    assert not pair.model.tags
