"""What a source is made with: mistakes are errors at once, and nothing that may be a secret is shown."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.sqs import SQSSource
from fastapi_cacheinval.contrib.sqs.addresses import Address, address_of
from fastapi_cacheinval.sources import KEEP

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/purges"


@pytest.mark.parametrize(
    "queue_url",
    [
        "",
        "purges",
        "arn:aws:sqs:eu-west-1:1:purges",
        "ftp://a/b",
        "https:///1/q",
        "https://sqs.eu-west-1.amazonaws.com",
        "https://sqs.eu-west-1.amazonaws.com/",
        "https://a:b/1/q",
        "https://a/1/q?x=1",
        "https://[a/1/q",
        None,
        3,
        b"https://a/q",
    ],
)
def test_a_queue_url_is_a_url(queue_url: Any) -> None:
    """A name, an ARN, or a host alone is not what SQS asks for."""
    with pytest.raises(ConfigurationError, match="queue_url"):
        SQSSource(HTTPCache(), queue_url)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"wait_seconds": 21}, "wait_seconds is a whole number from 0 to 20, not 21"),
        ({"wait_seconds": -1}, "wait_seconds"),
        ({"wait_seconds": 1.5}, "wait_seconds"),
        ({"wait_seconds": True}, "wait_seconds"),
        ({"visibility_timeout": 0}, "visibility_timeout is a whole number from 1 to 43200, not 0"),
        ({"visibility_timeout": 43_201}, "visibility_timeout"),
        ({"visibility_timeout": "60"}, "visibility_timeout"),
        ({"batch": 0}, "batch is a whole number from 1 to 10"),
        ({"batch": 11}, "batch"),
        ({"concurrency": 0}, "concurrency is a whole number from 1 to 100"),
        ({"concurrency": 101}, "concurrency"),
        ({"region": "us-east-1"}, "is in eu-west-1, not in us-east-1"),
        ({"region": "Ireland (eu)"}, "region is a name"),
        ({"region": 3}, "region is a name"),
        ({"endpoint_url": "localhost:4566"}, "endpoint_url is a URL"),
        ({"endpoint_url": "http://user:pw@localhost"}, "endpoint_url holds no credentials"),
        ({"tags": ["a"]}, "tags is a function"),
        ({"then": "then"}, "then is a function"),
        ({"on_poison": "ignore"}, "on_poison is"),
        ({"on_unreadable": "delete"}, "on_unreadable is"),
        ({"on_unreadable": KEEP, "on_poison": "leave"}, "the old name of on_unreadable"),
        ({"client_options": {"aws_access_key": "k"}}, "client_options has aws_access_key;"),
        ({"client_options": {"region_name": "x"}}, "client_options has region_name;"),
        ({"client_options": "key"}, "client_options is a mapping"),
        ({"session": "a profile"}, "session is one of aiobotocore"),
        ({"name": ""}, "a name"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any], why: str) -> None:
    """Numbers out of range, a region that is not the queue's, functions that are none, options that no client takes."""
    with pytest.raises(ConfigurationError, match=why):
        SQSSource(HTTPCache(), QUEUE, **options)


def test_credentials_are_never_shown() -> None:
    """Neither in reprs nor in errors, wherever they were put."""
    secret = "wJalrXUtnFEMI"
    source = SQSSource(
        HTTPCache(), QUEUE, client_options={"aws_secret_access_key": secret, "aws_access_key_id": "AKIA"}
    )
    assert repr(source) == "<SQSSource 'sqs' stopped>"
    assert secret not in repr(source._options)
    mistakes: list[dict[str, Any]] = [
        {"queue_url": f"https://AKIA:{secret}@sqs.eu-west-1.amazonaws.com/1/q"},
        {"client_options": {"key": secret}},
    ]
    for mistake in mistakes:
        with pytest.raises(ConfigurationError) as refused:
            SQSSource(HTTPCache(), **{"queue_url": QUEUE, **mistake})
        assert secret not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "region", "endpoint"),
    [
        ((QUEUE, None, None), "eu-west-1", None),
        ((QUEUE, "eu-west-1", None), "eu-west-1", None),
        ((QUEUE, None, "http://localhost:4566"), "eu-west-1", "http://localhost:4566"),
        (("https://sqs.cn-north-1.amazonaws.com.cn/1/q", None, None), "cn-north-1", None),
        (("https://sqs-fips.us-west-2.amazonaws.com/1/q", None, None), "us-west-2", None),
        (("https://sqs.eu-west-1.api.aws/1/q", None, None), "eu-west-1", None),
        (("https://eu-west-1.queue.amazonaws.com/1/q", None, None), "eu-west-1", None),
        (("https://queue.amazonaws.com/1/q", None, None), "us-east-1", None),
        (
            ("https://vpce-0a-1.sqs.eu-west-1.vpce.amazonaws.com/1/q", None, None),
            "eu-west-1",
            "https://vpce-0a-1.sqs.eu-west-1.vpce.amazonaws.com",
        ),
        (("http://localhost:9324/000000000000/q", None, None), None, "http://localhost:9324"),
        (("http://localhost:9324/q", "eu-west-1", None), "eu-west-1", "http://localhost:9324"),
        (("http://a/q", None, "http://b:1"), None, "http://b:1"),
    ],
)
def test_region_and_endpoint_come_from_the_url(given: Any, region: str | None, endpoint: str | None) -> None:
    """AWS's hosts name their region; what is no host of AWS answers for itself."""
    assert address_of(*given) == Address(given[0], region, endpoint)


def test_without_its_extra_it_says_what_to_install() -> None:
    """Where aiobotocore is missing the import fails with the extra's name, and the package itself is imported all the same."""
    program = (
        "import sys; sys.modules['aiobotocore'] = None\n"
        "import fastapi_cacheinval\n"
        "try: import fastapi_cacheinval.contrib.sqs\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert "pip install 'fastapi-cacheinval[sqs]'" in done.stdout
