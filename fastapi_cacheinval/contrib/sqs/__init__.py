"""Messages of an Amazon SQS queue become purges: plain ones, and those that SNS and EventBridge have wrapped."""

from __future__ import annotations

from fastapi_cacheinval.contrib.sqs.messages import Message, PoisonMessage
from fastapi_cacheinval.contrib.sqs.queues import QueueUnavailable
from fastapi_cacheinval.contrib.sqs.source import SQSSource

__all__ = ["Message", "PoisonMessage", "QueueUnavailable", "SQSSource"]
