"""One queue over its client: the calls that are made of it, their limits, and their failures in our words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.sqs.addresses import Address
from fastapi_cacheinval.contrib.sqs.trouble import QueueUnavailable, unavailable

try:
    # By name, because the client has no annotations: what is used of it is `Client` and `Session`.
    _session = import_module("aiobotocore.session")
    _config = import_module("aiobotocore.config")
except ImportError as error:
    raise ImportError(
        "fastapi_cacheinval.contrib.sqs needs aiobotocore: pip install 'fastapi-cacheinval[sqs]'"
    ) from error

__all__ = [
    "Client",
    "Facts",
    "Queue",
    "QueueUnavailable",
    "Session",
    "connected",
    "new_session",
    "own_session",
    "preload",
]

_REGION_OF_STAND_INS = "us-east-1"
_CONNECT_SECONDS = 5.0
# For an answer, beside what a poll waits by itself.
_ANSWER_SECONDS = 10.0
# Of each poll at once: its receive, its extension, its deletion; and one for the attributes.
_CALLS_OF_A_POLL = 3


class Client(Protocol):
    """What is used of a client of SQS."""

    async def receive_message(self, **options: object) -> Mapping[str, Any]:
        """Up to ten messages."""
        ...

    async def delete_message_batch(self, **options: object) -> Mapping[str, Any]:
        """Delete up to ten."""
        ...

    async def change_message_visibility_batch(self, **options: object) -> Mapping[str, Any]:
        """Hide up to ten for longer, or no longer."""
        ...

    async def get_queue_attributes(self, **options: object) -> Mapping[str, Any]:
        """What the queue is set to and holds."""
        ...


class Session(Protocol):
    """What is used of a session: it knows where credentials come from, and makes clients."""

    def create_client(self, service_name: str, **options: object) -> AbstractAsyncContextManager[Client]:
        """A client, to be entered."""
        ...

    def get_config_variable(self, name: str) -> Any:
        """A setting of the environment."""
        ...

    def get_component(self, name: str) -> Any:
        """A part of it."""
        ...


def new_session() -> Session:
    """A session of the environment: its variables, its files, the role of its machine."""
    session: Session = _session.get_session()
    return session


def own_session(given: Any) -> Session | None:
    """The user's session; raises `ConfigurationError` for one that makes no asynchronous clients."""
    if given is not None and not isinstance(given, _session.AioSession):
        raise ConfigurationError("session is one of aiobotocore: aiobotocore.session.get_session().")
    return given


def preload(session: Session) -> None:
    """Read what the client is made of from files, so that making it does not keep an event loop waiting; any thread."""
    loader = session.get_component("data_loader")
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data(name)
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("sqs", kind)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a queue tells of itself, None where it may not be asked: how many wait, and whether it redrives."""

    waiting: int | None = None
    redrives: bool | None = None


class Queue:
    """A queue, for as long as its client is open."""

    def __init__(self, client: Client, address: Address, *, visibility_timeout: int, batch: int) -> None:
        self._client = client
        self._address = address
        self._visibility_timeout = visibility_timeout
        self._batch = batch

    async def receive(self, wait_seconds: int) -> list[Mapping[str, Any]]:
        """The next messages, as soon as there are any; none after so many seconds."""
        with self._calls("ReceiveMessage"):
            answer = await self._client.receive_message(
                QueueUrl=self._address.queue_url,
                MaxNumberOfMessages=self._batch,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=self._visibility_timeout,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
            return list(answer.get("Messages") or ())

    async def delete(self, receipts: Sequence[str]) -> dict[str, bool]:
        """Delete up to ten; those that were not, each with whether another try may do it."""
        entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)]
        with self._calls("DeleteMessage"):
            answer = await self._client.delete_message_batch(QueueUrl=self._address.queue_url, Entries=entries)
            return _failed(answer, receipts)

    async def hide(self, seconds: Mapping[str, int]) -> dict[str, bool]:
        """Hide up to ten for so many seconds from now; those that were not, each with whether another try may do it."""
        receipts = list(seconds)
        entries = [
            {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": seconds[receipt]}
            for number, receipt in enumerate(receipts)
        ]
        with self._calls("ChangeMessageVisibility"):
            answer = await self._client.change_message_visibility_batch(
                QueueUrl=self._address.queue_url, Entries=entries
            )
            return _failed(answer, receipts)

    async def facts(self) -> Facts:
        """What it tells of itself."""
        try:
            with self._calls("GetQueueAttributes"):
                answer = await self._client.get_queue_attributes(
                    QueueUrl=self._address.queue_url, AttributeNames=["ApproximateNumberOfMessages", "RedrivePolicy"]
                )
                attributes: Mapping[str, str] = answer.get("Attributes") or {}
                return Facts(int(attributes["ApproximateNumberOfMessages"]), "RedrivePolicy" in attributes)
        except QueueUnavailable as error:
            if error.denied:
                return Facts()
            raise

    @contextmanager
    def _calls(self, call: str) -> Generator[None]:
        try:
            yield
        except Exception as error:
            raise unavailable(error, call, self._address) from error


def _failed(answer: Mapping[str, Any], receipts: Sequence[str]) -> dict[str, bool]:
    """Of a batch, what failed: it may do better another time unless that is the sender's own fault."""
    return {receipts[int(entry["Id"])]: not entry.get("SenderFault") for entry in answer.get("Failed") or ()}


@asynccontextmanager
async def connected(
    session: Session,
    address: Address,
    client_options: Mapping[str, Any],
    *,
    wait_seconds: int,
    visibility_timeout: int,
    batch: int,
    polls: int,
) -> AsyncGenerator[Queue]:
    """A queue whose client is open with the block; nothing is asked of it yet."""
    options = dict(client_options)
    own = _config.AioConfig(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=wait_seconds + _ANSWER_SECONDS,
        max_pool_connections=_CALLS_OF_A_POLL * polls + 1,
        # Once more for a connection that was closed meanwhile; what goes on is tried again by the source, which tells.
        retries={"mode": "standard", "total_max_attempts": 2},
        tcp_keepalive=True,
    )
    given = options.pop("config", None)
    try:
        client = session.create_client(
            "sqs",
            region_name=address.region or _region(session, address),
            endpoint_url=address.endpoint_url,
            config=own if given is None else own.merge(given),
            **options,
        )
        opened = await client.__aenter__()
    except Exception as error:
        raise unavailable(error, "connecting", address) from error
    try:
        yield Queue(opened, address, visibility_timeout=visibility_timeout, batch=batch)
    finally:
        await client.__aexit__(None, None, None)


def _region(session: Session, address: Address) -> str | None:
    """The region of the environment; where something stands in for AWS, any will do."""
    told = session.get_config_variable("region")
    return told or (_REGION_OF_STAND_INS if address.endpoint_url else None)
