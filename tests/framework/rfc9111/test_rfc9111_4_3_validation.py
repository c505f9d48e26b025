"""RFC 9111 section 4.3: conditional requests both ways, freshening by 304 and by HEAD."""

from __future__ import annotations

import pytest

from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio


async def stale_origin(**more: str) -> Origin:
    """An origin whose first answer has gone stale in the cache."""
    origin = Origin()
    origin.says({"cache-control": "max-age=5", "x-kept": "1", **more}, b"first")
    await origin.get()
    origin.forget()
    origin.clock.tick(10)
    return origin


async def test_4_3_1_a_stale_response_is_validated_with_its_own_validators() -> None:
    """`If-None-Match` and `If-Modified-Since` carry what was stored, byte for byte, instead of the client's."""
    modified = "Wed, 01 Jan 2020 00:00:00 GMT"
    origin = await stale_origin(**{"etag": 'W/"one"', "last-modified": modified})
    origin.says({"cache-control": "max-age=5"}, b"", status=304)
    answer = await origin.get(headers={"if-none-match": '"other"', "range": "bytes=0-1"})
    assert origin.sent("if-none-match") == [b'W/"one"']
    assert origin.sent("if-modified-since") == [modified.encode()]
    assert origin.sent("range") == []
    assert answer.status_code == 206
    assert answer.body == b"fi"


async def test_4_3_3_a_200_replaces_and_the_client_gets_it() -> None:
    """What the origin answers instead of a 304 is the new stored response."""
    origin = await stale_origin(etag='"1"')
    origin.says({"cache-control": "max-age=5", "etag": '"2"'}, b"second")
    assert (await origin.get()).body == b"second"
    assert (await origin.get()).body == b"second"
    assert origin.forwards == 2


async def test_4_3_4_a_304_freshens_and_the_client_gets_the_whole() -> None:
    """The stored content with the new fields, fresh again, and said to be validated."""
    origin = await stale_origin(etag='"1"')
    origin.says({"cache-control": "max-age=50", "x-new": "2", "age": "10"}, b"", status=304)
    answer = await origin.get()
    assert (answer.status_code, answer.body) == (200, b"first")
    assert (answer.fields("x-kept"), answer.fields("x-new")) == ([b"1"], [b"2"])
    assert (answer.cache.fwd, answer.cache.fwd_status, answer.cache.stored, answer.cache.ttl) == (
        "stale",
        304,
        True,
        40,
    )
    origin.clock.tick(39)
    assert (await origin.get()).cache.hit
    origin.clock.tick(2)
    await origin.get()
    assert origin.forwards == 3


@pytest.mark.parametrize(
    ("name", "updated"),
    [
        ("test-header", True),
        ("content-language", True),
        ("content-location", True),
        ("content-security-policy", True),
        ("expires", True),
        ("cache-control", True),
        ("content-encoding", False),
        ("content-length", False),
        ("content-range", False),
        ("content-md5", False),
        ("content-digest", False),
        ("repr-digest", False),
        ("digest", False),
        ("etag", False),
    ],
)
async def test_3_2_fields_of_a_304_replace_those_of_the_same_name(name: str, updated: bool) -> None:
    """All but those that describe the content that is kept."""
    old = {"content-length": "5", "cache-control": "max-age=1", "etag": '"1"'}.get(name, "old")
    new = {"content-length": "9", "cache-control": "max-age=2", "etag": '"2"'}.get(name, "new")
    origin = await stale_origin(**{"etag": '"1"', name: old})
    origin.says({name: new}, b"", status=304)
    answer = await origin.get()
    assert answer.fields(name) == [(new if updated else old).encode()]


@pytest.mark.parametrize(
    ("stored", "said", "then"),
    [
        ("Cookie, Accept-Encoding", "accept-encoding", "Cookie, Accept-Encoding"),
        ("X-Plan, Accept-Encoding", "x-plan", "X-Plan, Accept-Encoding"),
        ("accept-language", "Origin", "accept-language, Origin"),
        ("accept-language", "", "accept-language"),
        ("accept-language", "*", None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_selected_the_content_still_does_after_an_update(
    method: str, stored: str, said: str, then: str | None
) -> None:
    """`Vary` gains the names of a 304, or of the answer to a HEAD, and loses none of its own: else another gets it."""
    alice = {"cookie": "user=alice", "accept-encoding": "gzip", "accept-language": "de", "origin": "https://a.example"}
    bob = {"cookie": "user=bob", "accept-encoding": "identity", "accept-language": "en", "origin": "https://a.example"}
    origin = Origin()
    control = {"cache-control": "public, max-age=5", "etag": '"1"'}
    origin.says({**control, "vary": stored}, b"alice's")
    await origin.get(headers=alice)
    origin.forget()
    origin.clock.tick(10)
    origin.says({**control, "vary": said}, b"", status=304 if method == "GET" else 200)
    await origin.get(headers=alice, method=method)
    origin.forget()
    origin.says({**control, "vary": stored, "etag": '"2"'}, b"bob's")
    if then is not None:
        answer = await origin.get(headers=alice)
        assert (answer.body, answer.fields("vary")) == (b"alice's", [then.encode()])
    assert (await origin.get(headers=bob)).body == b"bob's"


@pytest.mark.parametrize(
    ("stored", "said", "then"),
    [
        ("text/html", "application/json", "text/html"),
        ("text/html", "TEXT/HTML ;charset=utf-8", "TEXT/HTML ;charset=utf-8"),
        ("text/html; charset=utf-8", "text/html", "text/html; charset=utf-8"),
        ("text/html; charset=latin-1", "text/html; charset=utf-8", "text/html; charset=utf-8"),
        ("text/html", "", "text/html"),
        (None, "application/json", None),
        ("text/html", None, "text/html"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_stored_content_keeps_its_media_type(
    method: str, stored: str | None, said: str | None, then: str | None
) -> None:
    """FastAPI writes `application/json` on a 304 of a handler that returns nothing, whatever its 200 was."""
    control = {"cache-control": "max-age=5", "etag": '"1"'}
    origin = Origin()
    origin.says(control | ({} if stored is None else {"content-type": stored}))
    await origin.get()
    origin.forget()
    origin.clock.tick(10)
    update = control | ({} if said is None else {"content-type": said})
    origin.says(update, b"", status=304 if method == "GET" else 200)
    await origin.get(method=method)
    answer = await origin.get()
    assert (answer.cache.hit, answer.body) == (True, b"content")
    assert answer.fields("content-type") == ([] if then is None else [then.encode()])


async def test_3_2_all_lines_of_a_field_are_replaced_in_its_place() -> None:
    """Two new lines stand where the first old one stood, and no old one is left."""
    origin = Origin()
    origin.says([("cache-control", "max-age=1"), ("link", "<1>"), ("etag", '"1"'), ("link", "<2>"), ("x-z", "")])
    origin.says([("link", "<3>"), ("link", "<4>"), ("connection", "x-hop"), ("x-hop", "1")], b"", status=304)
    await origin.get()
    origin.clock.tick(2)
    own, hit = [
        [line for line in (await origin.get()).raw if line[0] not in (b"cache-status", b"age")] for _ in range(2)
    ]
    # What is of the app's own connection stays on its answer, and is not kept.
    assert own == [*hit, (b"connection", b"x-hop"), (b"x-hop", b"1")]
    assert hit == [
        (b"cache-control", b"max-age=1"),
        (b"link", b"<3>"),
        (b"link", b"<4>"),
        (b"etag", b'"1"'),
        (b"x-z", b""),
    ]


async def test_4_3_2_a_fresh_response_answers_conditions() -> None:
    """A 304 with the validator and without what describes content; `If-None-Match` goes before dates."""
    origin = Origin()
    origin.says(
        {
            "cache-control": "max-age=60",
            "etag": '"1"',
            "last-modified": "Wed, 01 Jan 2020 00:00:00 GMT",
            "content-type": "text/plain",
        }
    )
    await origin.get()
    matching = await origin.get(headers={"if-none-match": '"0", W/"1"'})
    assert (matching.status_code, matching.body, matching.fields("etag")) == (304, b"", [b'"1"'])
    assert matching.fields("content-type") == []
    dated = await origin.get(headers={"if-modified-since": "Wednesday, 01-Jan-20 00:00:00 GMT"})
    assert dated.status_code == 304
    both = await origin.get(headers={"if-none-match": '"2"', "if-modified-since": "Wed, 01 Jan 2020 00:00:00 GMT"})
    assert both.status_code == 200
    assert origin.forwards == 1


async def test_4_3_2_a_condition_on_a_miss_does_not_keep_the_cache_empty() -> None:
    """The origin is asked for the whole, which is stored; the client has its 304 all the same."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "etag": '"1"'})
    answer = await origin.get(headers={"if-none-match": '"1"'})
    assert (answer.status_code, origin.sent("if-none-match")) == (304, [])
    assert (await origin.get()).cache.hit


async def test_4_3_2_a_condition_on_what_is_not_stored_is_still_answered() -> None:
    """Private and streamed answers give who has them already a 304, too."""
    origin = Origin()
    origin.says({"cache-control": "private", "etag": '"1"'}, chunks=[b"one", b"two"])
    assert (await origin.get(headers={"if-none-match": '"1"'})).status_code == 304
    streamed = Origin()
    streamed.says({"cache-control": "max-age=60", "etag": '"1"'}, chunks=[b"one", b"two"])
    first = await streamed.get(headers={"if-none-match": '"1"'})
    assert (first.status_code, first.body) == (304, b"")
    assert (await streamed.get()).body == b"onetwo"
    assert streamed.forwards == 1


@pytest.mark.parametrize(
    ("asks", "status"), [({}, 200), ({"if-none-match": '"1"'}, 304), ({"range": "bytes=0-1"}, 206)]
)
@pytest.mark.parametrize("kept", [True, False])
async def test_4_2_3_the_age_that_a_304_states_is_passed_on(asks: dict[str, str], status: int, kept: bool) -> None:
    """As that of a 200 is: a cache downstream would else keep the response longer by it."""
    origin = Origin()
    origin.says({"cache-control": "max-age=0", "etag": '"1"', "age": "5"})
    control = "max-age=2000" if kept else "no-store"
    origin.says({"cache-control": control, "etag": '"1"', "age": "1000"}, b"", status=304)
    assert (await origin.get()).fields("age") == [b"5"]
    answer = await origin.get(headers=asks)
    assert (answer.status_code, answer.cache.stored, answer.fields("age")) == (status, kept, [b"1000"])


@pytest.mark.parametrize("name", ["if-match", "if-unmodified-since"])
async def test_4_3_2_preconditions_for_the_origin_go_to_the_origin(name: str) -> None:
    """A cache must not evaluate them, so they pass, and what is stored stays."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60"})
    origin.says(status=412)
    await origin.get()
    assert (await origin.get(headers={name: '"1"'})).status_code == 412
    assert origin.sent(name) == [b'"1"']
    assert (await origin.get()).cache.hit


async def test_4_3_a_304_that_nobody_asked_for_is_neither_stored_nor_hidden() -> None:
    """A response without validators is fetched whole, and a 304 to that is the origin's own word."""
    origin = await stale_origin()
    origin.says({}, b"", status=304)
    answer = await origin.get()
    assert (answer.status_code, origin.sent("if-none-match")) == (304, [])


@pytest.mark.parametrize("control", ["no-cache, max-age=60", "max-age=0", "no-cache"])
async def test_5_2_2_4_no_cache_is_stored_and_validated_for_each(control: str) -> None:
    """Every request asks the origin; its 304 is enough."""
    origin = Origin()
    origin.says({"cache-control": control, "etag": '"1"'}, b"kept")
    origin.says({"cache-control": control, "etag": '"1"'}, b"", status=304)
    for _ in range(3):
        assert (await origin.get()).body == b"kept"
    assert origin.forwards == 3
    assert origin.sent("if-none-match") == [b'"1"']


async def test_4_3_4_a_304_that_forbids_storing_lets_go_of_what_was_stored() -> None:
    """The client has the content; the next request starts anew."""
    origin = await stale_origin(etag='"1"')
    origin.says({"cache-control": "no-store"}, b"", status=304)
    origin.says({}, b"new")
    assert (await origin.get()).body == b"first"
    assert (await origin.get()).body == b"new"
    assert origin.sent("if-none-match") == []


async def test_4_3_4_a_cookie_on_a_304_goes_to_its_client_alone() -> None:
    """It is not merged into what others get."""
    origin = await stale_origin(etag='"1"')
    origin.says({"cache-control": "max-age=60", "set-cookie": "mine=1"}, b"", status=304)
    assert (await origin.get()).fields("set-cookie") == [b"mine=1"]
    assert (await origin.get()).fields("set-cookie") == []


async def test_9110_9_3_2_head_is_answered_by_a_stored_get() -> None:
    """The same fields and no content; a HEAD's empty body is never stored for GET."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "content-length": "7"})
    await origin.get(method="HEAD")
    await origin.get()
    head = await origin.get(method="HEAD")
    assert (head.body, head.fields("content-length"), head.cache.hit) == (b"", [b"7"], True)
    assert origin.forwards == 2


@pytest.mark.parametrize(
    ("status", "headers", "freshened", "kept"),
    [
        (200, {"cache-control": "max-age=60", "content-length": "5", "x-kept": "2", "etag": '"1"'}, True, True),
        (200, {"cache-control": "max-age=60", "etag": '"1"'}, True, True),
        (200, {"cache-control": "max-age=60", "content-length": "5", "x-kept": "2"}, False, True),
        (200, {"cache-control": "max-age=60"}, False, True),
        (200, {"cache-control": "max-age=60", "last-modified": "Wed, 01 Jan 2020 00:00:00 GMT"}, False, True),
        (200, {"cache-control": "max-age=60", "etag": '"1"', "content-length": "6"}, False, False),
        (200, {"cache-control": "no-store", "etag": '"1"'}, False, False),
        (301, {"cache-control": "max-age=60"}, False, False),
        (404, {}, False, False),
        (403, {"cache-control": "max-age=60"}, False, True),
        (405, {}, False, True),
        (304, {"cache-control": "max-age=60", "etag": '"1"'}, False, True),
        (200, {"cache-control": "max-age=60", "etag": '"2"'}, False, False),
        (200, {"cache-control": "max-age=60", "content-length": "6"}, False, False),
        (410, {"cache-control": "max-age=60"}, False, False),
        (503, {"cache-control": "max-age=60"}, False, True),
    ],
)
async def test_4_3_5_a_head_freshens_or_outdates(
    status: int, headers: dict[str, str], freshened: bool, kept: bool
) -> None:
    """Where nothing contradicts what is stored, its fields are renewed; else it is not used again."""
    origin = await stale_origin(etag='"1"')
    origin.says(headers, b"", status=status)
    origin.says({"cache-control": "max-age=60"}, b"", status=304)
    head = await origin.get(method="HEAD")
    assert head.status_code == status
    assert origin.asked[-1]["method"] == "HEAD"
    before = origin.forwards
    answer = await origin.get()
    assert (origin.forwards == before) is freshened
    if freshened:
        assert answer.body == b"first"
        assert answer.fields("x-kept") == [headers.get("x-kept", "1").encode()]
    else:
        assert (origin.sent("if-none-match") == [b'"1"']) is kept


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("dated", [True, False])
async def test_4_3_4_what_renews_without_a_date_is_of_when_it_came(method: str, dated: bool) -> None:
    """RFC 9110 section 6.6.1: a 304 or a HEAD without `Date` makes the response fresh, whose own Date is past."""
    origin = Origin()
    fields = {"cache-control": "max-age=10", "etag": '"1"'}
    origin.says({**fields, "date": origin.date()}, b"content")
    await origin.get()
    origin.forget()
    origin.clock.tick(20)
    renewed_at = origin.date()
    date = {"date": renewed_at} if dated else {}
    origin.says({**fields, **date}, b"", status=304 if method == "GET" else 200)
    await origin.get(method=method)
    for seconds in (0, 9):
        origin.clock.tick(seconds)
        answer = await origin.get()
        assert (answer.body, answer.cache.hit, answer.fields("date")) == (b"content", True, [renewed_at.encode()])
        assert int(answer.fields("age")[0]) == seconds
    assert origin.forwards == 2


async def test_4_3_4_what_has_no_date_is_renewed_without_one() -> None:
    """A server or a proxy in front adds it, as before."""
    origin = Origin()
    fields = {"cache-control": "max-age=10", "etag": '"1"'}
    origin.says(fields, b"content")
    await origin.get()
    origin.forget()
    origin.clock.tick(20)
    origin.says(fields, b"", status=304)
    assert not (await origin.get()).fields("date")
    assert (await origin.get()).cache.hit
