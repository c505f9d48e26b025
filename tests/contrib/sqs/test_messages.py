"""Messages out of their envelopes, and what they ask for: whatever a body is, it is read or refused."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.contrib.sqs import Message, PoisonMessage
from fastapi_cacheinval.contrib.sqs.batches import Batch, Held, Verdict, backoff, extension
from fastapi_cacheinval.contrib.sqs.reading import causes_of, read
from fastapi_cacheinval.sources import Change, Outcome

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def of(body: str, **more: Any) -> Message:
    return Message.of({"MessageId": "m1", "Body": body, **more})


def sns(message: Any, **more: Any) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:x:1:t", "Message": message, **more})


def event(detail: Any, **more: Any) -> str:
    return json.dumps({"source": "shop", "detail-type": "changed", "detail": detail, "id": "e1", **more})


def text(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


# -- envelopes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "envelopes", "inner"),
    [
        ("plain", (), "plain"),
        ("", (), ""),
        ('{"tags": ["a"]}', (), '{"tags": ["a"]}'),
        (sns("plain"), ("sns",), "plain"),
        ("\n  " + sns("plain"), ("sns",), "plain"),
        (event({"a": 1}), ("eventbridge",), '{"a":1}'),
        (event("é"), ("eventbridge",), '"é"'),
        (sns(event({"a": 1})), ("sns", "eventbridge"), '{"a":1}'),
        (sns(sns("x")), ("sns", "sns"), "x"),
        (event({"source": "inner", "detail-type": "t", "detail": 1}), ("eventbridge", "eventbridge"), "1"),
    ],
)
def test_envelopes_come_off_from_the_outside_in(body: str, envelopes: tuple[str, ...], inner: str) -> None:
    """SNS's `Message`, EventBridge's `detail`, and either in the other."""
    message = of(body)
    assert (message.envelopes, message.body) == (envelopes, inner)


@pytest.mark.parametrize(
    "body",
    [
        '{"Type": "Notification", "Message": "no topic"}',
        '{"Type": "Notification", "TopicArn": "t", "Message": 3}',
        '{"Type": "Report", "TopicArn": "t", "Message": "another type"}',
        '{"Type": "SubscriptionConfirmation", "TopicArn": "t", "Message": "without a token"}',
        '{"source": "shop", "detail": {}}',
        '{"source": "", "detail-type": "t", "detail": {}}',
        '{"source": "shop", "detail-type": "t"}',
        "[1, 2]",
        '{"source": "shop", "detail-type": "t", "detail": ',
    ],
)
def test_what_only_looks_like_an_envelope_is_the_body(body: str) -> None:
    """Fields that are missing, empty or of another type make it the producer's own JSON."""
    message = of(body)
    assert (message.envelopes, message.body) == ((), body)


def test_nesting_ends_somewhere() -> None:
    """After four envelopes the rest is the body: a message cannot keep the reader busy."""
    body = "x"
    for _ in range(9):
        body = sns(body)
    message = of(body)
    assert len(message.envelopes) == 4
    assert json.loads(message.body)["Type"] == "Notification"


def test_envelopes_tell_what_they_know() -> None:
    """Topic and subject of SNS, source, type and resources of EventBridge, attributes of both and of SQS."""
    body = sns(
        event({}, resources=["arn:1", 2, "arn:2"]),
        Subject="a change",
        MessageAttributes={
            "kind": {"Type": "String", "Value": "price"},
            "both": {"Type": "String", "Value": "inner"},
            "raw": {"Type": "Binary", "Value": base64.b64encode(b"\x00\xff").decode()},
            "torn": {"Type": "Binary", "Value": "%%"},
            "odd": ["no", "record"],
        },
    )
    message = of(
        body,
        MessageAttributes={
            "both": text("outer"),
            "own": text("1"),
            "bytes": {"DataType": "Binary", "BinaryValue": b"b"},
        },
        Attributes={"SentTimestamp": "1", "ApproximateReceiveCount": "3"},
    )
    assert (message.topic, message.subject) == ("arn:aws:sns:x:1:t", "a change")
    assert (message.source, message.detail_type, message.resources) == ("shop", "changed", ("arn:1", "arn:2"))
    assert message.message_attributes == {
        "kind": "price",
        "both": "inner",
        "raw": b"\x00\xff",
        "own": "1",
        "bytes": b"b",
    }
    assert message.attributes["SentTimestamp"] == "1"
    assert message.receive_count == 3


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_what_sns_asks_to_confirm_is_refused_with_what_to_do(kind: str) -> None:
    """A topic of another account asks the queue to confirm: that is nobody's change, whoever names the tags."""
    message = of(json.dumps({"Type": kind, "TopicArn": "t", "Message": "You have chosen", "Token": "secret"}))
    assert message.envelopes == ("confirmation",)
    for tags in (None, lambda message: ["a"]):
        with pytest.raises(PoisonMessage, match="visit its SubscribeURL"):
            read(message, tags, soft=False)


def test_a_message_is_frozen_and_does_not_show_what_it_holds() -> None:
    """Its repr has its id, envelopes and length; no body and no attribute."""
    message = of(sns(event({"card": "4111"})), MessageAttributes={"token": text("4111")})
    assert repr(message) == "<Message m1 in eventbridge in sns, 15 characters>"
    assert repr(of("4111")) == "<Message m1, 4 characters>"
    with pytest.raises(FrozenInstanceError):
        message.body = ""  # type: ignore[misc]


# -- what is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "change"),
    [
        ('{"tags": ["a", "b"]}', Change(("a", "b"))),
        ('{"tags": ["a"], "soft": true}', Change(("a",), soft=True)),
        ('{"tags": ["a"], "else": {"x": [1]}}', Change(("a",))),
        ('{"everything": true}', Change(everything=True)),
        ('{"tags": [], "everything": true, "soft": true}', Change(everything=True, soft=True)),
        ('{"tags": []}', Change()),
        (sns('{"tags": ["a"]}'), Change(("a",))),
        (event({"tags": ["a"]}), Change(("a",))),
    ],
)
def test_json_is_read(body: str, change: Change) -> None:
    """Tags, soft and everything; what else is there is the producer's."""
    assert read(of(body), None, soft=False) == change
    assert bool(change) is (change != Change())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "no JSON"),
        ("tags=a", "no JSON"),
        ('{"tags": ["a"]', "no JSON"),
        ("\ufeff{}", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("1" * 5_000, "no JSON"),
        ("x" * 262_144, "no JSON"),
        ('["a"]', "a JSON list"),
        ("null", "a JSON NoneType"),
        ("{}", 'no list of "tags"'),
        ('{"tag": ["a"]}', 'no list of "tags"'),
        ('{"tags": "a"}', 'no list of "tags"'),
        ('{"tags": null, "everything": true}', 'no list of "tags"'),
        ('{"tags": ["a", 3]}', "a tag is text that is not empty, not int"),
        ('{"tags": [["a"]]}', "not list"),
        ('{"tags": [""]}', "not empty"),
        ('{"tags": ["a"], "soft": 1}', '"soft" is true or false, not int'),
        ('{"tags": ["a"], "everything": "no"}', '"everything" is true or false, not str'),
    ],
)
def test_what_cannot_be_read_is_refused_and_says_why(body: str, why: str) -> None:
    """No JSON, another shape, a tag that is none: the error tells the place, and nothing of what stands there."""
    with pytest.raises(PoisonMessage, match=why) as refused:
        read(of(body), None, soft=False)
    assert len(str(refused.value)) < 200


def test_soft_is_for_messages_that_do_not_say() -> None:
    """The source's `soft` gives way to the message's own."""
    assert read(of('{"tags": ["a"]}'), None, soft=True).soft
    assert not read(of('{"tags": ["a"], "soft": false}'), None, soft=True).soft
    assert read(of("x"), lambda message: ["a"], soft=True) == Change(("a",), soft=True)


@pytest.mark.parametrize(
    ("named", "tags"),
    [
        (["a", "b"], ("a", "b")),
        (("a",), ("a",)),
        ({"a": 1}, ("a",)),
        ("a", ("a",)),
        ([], ()),
        (None, ()),
        (iter(["a"]), ("a",)),
    ],
)
def test_a_function_names_tags_in_any_iterable(named: Any, tags: tuple[str, ...]) -> None:
    """One text is one tag, not its letters; nothing is nothing to purge."""
    assert read(of("x"), lambda message: named, soft=False).tags == tags


@pytest.mark.parametrize("named", [3, [None], ["a", b"b"], [""], ""])
def test_a_function_that_names_what_is_no_tag_is_told(named: Any) -> None:
    """What is no text, and what cannot be gone through, is a message that cannot be read."""
    with pytest.raises(PoisonMessage, match=r"a tag is|raised TypeError"):
        read(of("x"), lambda message: named, soft=False)


def test_whatever_the_function_raises_is_a_message_that_cannot_be_read() -> None:
    """The error says its type; the error itself, which may quote the message, hangs behind it."""

    def tags(message: Message) -> list[str]:
        return [message.json()["card 4111"]]

    with pytest.raises(PoisonMessage) as refused:
        read(of("{}"), tags, soft=False)
    assert str(refused.value) == "the function that names its tags raised KeyError"
    assert isinstance(refused.value.__cause__, KeyError)
    with pytest.raises(PoisonMessage, match="no JSON"):
        read(of("{"), tags, soft=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "tags",
                    "soft",
                    "everything",
                    "Type",
                    "Message",
                    "TopicArn",
                    "Token",
                    "MessageAttributes",
                    "source",
                    "detail-type",
                    "detail",
                    "resources",
                    "Value",
                    "x",
                ]
            ),
            inner | st.sampled_from(["Notification", "SubscriptionConfirmation", "Binary"]),
            max_size=8,
        )
    ),
    max_leaves=20,
)
BODIES = (
    st.text()
    | JSON.map(json.dumps)
    | JSON.map(json.dumps).map(sns)
    | JSON.map(event)
    | st.binary().map(lambda raw: raw.decode("latin-1"))
    | st.tuples(JSON.map(json.dumps), st.integers(0, 200)).map(lambda both: both[0][: both[1]])
)


@given(BODIES, st.booleans())
def test_whatever_a_body_is_it_is_read_or_refused(body: str, soft: bool) -> None:
    """Arbitrary text, JSON, envelopes around them and torn ones: tags that are text, or the one error."""
    message = of(body)
    repr(message)
    with contextlib.suppress(PoisonMessage):
        change = read(message, None, soft=soft)
        assert all(isinstance(tag, str) and tag for tag in change.tags)
        assert isinstance(change.soft, bool)
        assert isinstance(change.everything, bool)


@given(
    st.dictionaries(st.sampled_from(["MessageId", "Body", "Attributes", "MessageAttributes", "ReceiptHandle"]), JSON)
)
def test_whatever_a_stand_in_for_sqs_sends_makes_a_message(received: Any) -> None:
    """Records with fields missing or of other types never raise where they are taken in."""
    message = Message.of(received)
    assert message.receive_count >= 0
    assert all(isinstance(value, str | bytes) for value in message.message_attributes.values())
    causes_of(message)
    Batch([received], ordered=True).lines()


# -- causes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "own", "causes"),
    [
        ({}, {}, ()),
        ({"traceparent": text(TRACE)}, {}, ({"traceparent": TRACE},)),
        (
            {"TraceParent": text(TRACE), "TRACESTATE": text("a=1"), "x": text("y")},
            {"AWSTraceHeader": "Root=1-00000001-000000000000000000000001;Parent=0000000000000001;Sampled=1"},
            ({"traceparent": TRACE, "tracestate": "a=1"},),
        ),
        (
            {},
            {"AWSTraceHeader": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"},
            ({"traceparent": "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"},),
        ),
        (
            {},
            {"AWSTraceHeader": "Parent=53995c3f42cd8ad8; Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=1"},
            ({"traceparent": "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-00"},),
        ),
        ({}, {"AWSTraceHeader": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"}, ()),
        ({}, {"AWSTraceHeader": ";;=;nonsense"}, ()),
        ({"traceparent": {"DataType": "Binary", "BinaryValue": b"00"}}, {}, ()),
    ],
)
def test_what_led_to_a_message_is_in_its_attributes(attributes: Any, own: Any, causes: Any) -> None:
    """W3C Trace Context under names in any case, else the X-Ray header, which has the same ids."""
    assert causes_of(of("x", MessageAttributes=attributes, Attributes=own)) == causes


def test_what_led_to_a_notification_is_in_the_attributes_of_sns() -> None:
    """Those of the publisher, which SNS puts into its envelope."""
    body = sns("x", MessageAttributes={"traceparent": {"Type": "String", "Value": TRACE}})
    assert causes_of(of(body)) == ({"traceparent": TRACE},)


# -- what becomes of them -------------------------------------------------------------------------


def test_a_message_that_fails_is_hidden_for_longer_each_time() -> None:
    """One second, doubled up to a quarter of an hour."""
    assert [backoff(count) for count in (0, 1, 2, 3, 10, 11, 500)] == [1, 1, 2, 4, 512, 900, 900]


@pytest.mark.parametrize(
    ("held_for", "timeout", "seconds"),
    [
        (20, 60, 60),
        (43_000, 60, 60),
        (43_080, 60, 60),
        (43_100, 60, 40),
        (43_140, 60, 0),
        (50_000, 60, 0),
        (0, 43_200, 43_140),
        (14_400, 43_200, 28_740),
    ],
)
def test_a_message_is_hidden_for_twelve_hours_at_the_most(held_for: float, timeout: int, seconds: int) -> None:
    """An extension never goes past what SQS allows, counted from when the message was handed out."""
    assert extension(held_for, timeout) == seconds


def test_what_is_deleted_and_what_is_given_back() -> None:
    """Deleted is what has such a verdict; given back at once is what nothing came of, later what failed."""
    batch = Batch([{"MessageId": name, "ReceiptHandle": name, "Body": ""} for name in "abcd"], ordered=False)
    for held, verdict in zip(
        batch.held,
        [Verdict(Outcome.DONE), Verdict(Outcome.DROPPED), Verdict(Outcome.FAILED, hidden=4)],
        strict=False,
    ):
        held.verdict = verdict
    assert [held.receipt for held in batch.to_delete()] == ["a", "b"]
    assert batch.to_hide() == {"c": 4, "d": 0}


def test_groups_are_lines_where_the_queue_keeps_an_order() -> None:
    """In a FIFO queue each group is worked on in order; in another, where groups only share fairly, each message alone."""
    received = [
        {"MessageId": name, "ReceiptHandle": name, "Body": "", "Attributes": {"MessageGroupId": group}}
        for name, group in (("1", "a"), ("2", "b"), ("3", "a"))
    ]

    def receipts(lines: list[list[Held]]) -> list[list[str]]:
        return [[held.receipt for held in line] for line in lines]

    assert receipts(Batch(received, ordered=True).lines()) == [["1", "3"], ["2"]]
    assert receipts(Batch(received, ordered=False).lines()) == [["1"], ["2"], ["3"]]
