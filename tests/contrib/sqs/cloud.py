"""SQS, SNS and EventBridge over HTTP on 127.0.0.1, in a process that can be killed, and what producers do with them."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from tests.servers.child import Child
from tests.servers.ports import free_port
from tests.servers.waiting import until

REGION = "eu-west-1"
# For sources: answers soon, and messages that were lost on the way to a poll that ended come back soon.
SOON: dict[str, Any] = {"wait_seconds": 1, "visibility_timeout": 2, "region": REGION}

_numbers = count()


class Cloud:
    """A moto server; all of its state is in its process."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._child: Child | None = None
        session = import_module("botocore.session").get_session()
        config = import_module("botocore.config").Config(retries={"total_max_attempts": 1})
        self._make = lambda name: session.create_client(
            name,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="AKIAOFAPRODUCER",
            aws_secret_access_key="a secret of a producer",
            config=config,
        )
        self._clients: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, name: str) -> Any:
        """A client of one of its services, of a producer or an operator."""
        if name not in self._clients:
            self._clients[name] = self._make(name)
        return self._clients[name]

    # -- its life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, with nothing on it."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._child = Child("moto", command, self._directory)
        until(lambda: self._answers("/moto-api/"), "an answer of moto", detail=self._child.tail)

    def kill(self) -> None:
        """End it at once, with all that it holds."""
        assert self._child is not None
        self._child.kill()

    def clear(self) -> None:
        """Begin anew, whatever became of it."""
        if self._child is None or not self._child.alive:
            self.start()
        assert self._answers("/moto-api/reset", method="POST")

    def close(self) -> None:
        """End it."""
        for client in self._clients.values():
            client.close()
        if self._child is not None:
            self._child.kill()

    def _answers(self, path: str, method: str = "GET") -> bool:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, method=method), timeout=10):
                return True
        except OSError:
            return False

    # -- queues ---------------------------------------------------------------------------------

    def queue(self, name: str | None = None, **attributes: Any) -> str:
        """The URL of a new queue."""
        name = name or f"queue-{next(_numbers)}"
        given = {key: str(value) for key, value in attributes.items()}
        return self.client("sqs").create_queue(QueueName=name, Attributes=given)["QueueUrl"]

    def with_dead_letters(self, receives: int) -> tuple[str, str]:
        """A queue that redrives after so many receives, and where to."""
        dead = self.queue()
        policy = json.dumps({"deadLetterTargetArn": self.arn(dead), "maxReceiveCount": receives})
        return self.queue(RedrivePolicy=policy), dead

    def arn(self, queue_url: str) -> str:
        """What other services call it."""
        asked = self.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        return asked["Attributes"]["QueueArn"]

    def send(self, queue_url: str, body: Any, attributes: Mapping[str, str] | None = None, **more: Any) -> str:
        """Send a message, text as it is and anything else as JSON; its id."""
        text = body if isinstance(body, str) else json.dumps(body)
        named = {name: {"DataType": "String", "StringValue": value} for name, value in (attributes or {}).items()}
        sent = self.client("sqs").send_message(QueueUrl=queue_url, MessageBody=text, MessageAttributes=named, **more)
        return sent["MessageId"]

    def counts(self, queue_url: str) -> tuple[int, int]:
        """How many messages of a queue are to be had, and how many are hidden because somebody has them."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        asked = self.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
        return int(asked[names[0]]), int(asked[names[1]])

    def empty(self, queue_url: str) -> bool:
        """Whether everything was deleted."""
        return self.counts(queue_url) == (0, 0)

    def bodies(self, queue_url: str) -> list[str]:
        """What can be had of a queue now; it is left there."""
        got = self.client("sqs").receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in got.get("Messages", [])]

    # -- what wraps -----------------------------------------------------------------------------

    def topic(self, queue_url: str, **attributes: str) -> str:
        """A topic of SNS that the queue is subscribed to; its ARN."""
        sns = self.client("sns")
        topic = sns.create_topic(Name=f"topic-{next(_numbers)}")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=self.arn(queue_url), Attributes=attributes)
        return topic

    def publish(self, topic: str, body: Any, attributes: Mapping[str, str] | None = None) -> None:
        """Publish to a topic, text as it is and anything else as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        named = {name: {"DataType": "String", "StringValue": value} for name, value in (attributes or {}).items()}
        self.client("sns").publish(TopicArn=topic, Message=text, Subject="a change", MessageAttributes=named)

    def bus(self, queue_url: str) -> str:
        """A bus of EventBridge that sends all events of the shop to the queue; its name."""
        events, name = self.client("events"), f"bus-{next(_numbers)}"
        events.create_event_bus(Name=name)
        events.put_rule(Name="all", EventBusName=name, EventPattern=json.dumps({"source": ["shop"]}))
        events.put_targets(Rule="all", EventBusName=name, Targets=[{"Id": "queue", "Arn": self.arn(queue_url)}])
        return name

    def put(self, bus: str, detail_type: str, detail: Any) -> None:
        """Put an event of the shop on a bus."""
        entry = {"EventBusName": bus, "Source": "shop", "DetailType": detail_type, "Detail": json.dumps(detail)}
        assert self.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0
