"""Events from elsewhere that become purges: what a source of them is made of, whatever system they come from.

An event is read, which gives a `Change`; that is delivered, which gives a receipt; `then` is awaited with it; and only
after that does the system forget the event. Whatever fails on the way, the event is kept and tried again.
"""

from __future__ import annotations

from fastapi_cacheinval.sources.attached import Attached
from fastapi_cacheinval.sources.changes import EVERYTHING, Change, UnreadableEvent
from fastapi_cacheinval.sources.handlers import DROP, KEEP, OnUnreadable, Then, Unread
from fastapi_cacheinval.sources.source import Outcome, Source

__all__ = [
    "DROP",
    "EVERYTHING",
    "KEEP",
    "Attached",
    "Change",
    "OnUnreadable",
    "Outcome",
    "Source",
    "Then",
    "Unread",
    "UnreadableEvent",
]
