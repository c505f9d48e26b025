"""The outer end of a safe request: the answer of a route with a partition or a guard never leaves as a public one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import Message, Send

from fastapi_cacheinval.core.private_answers import made_private, says_shared
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.grammar.fields import lower_names
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["PrivateAnswers"]


class PrivateAnswers:
    """A `send` that makes the answers of some routes private, whoever wrote their fields and however they came about.

    Both are asked when the answer begins: `known` gives the plan of the route that the request has come to, if it has;
    `plan` that of the route that answers, or would have, None where no route does.
    """

    __slots__ = ("_app_context", "_known", "_plan", "_send")

    def __init__(
        self,
        app_context: AppContext,
        send: Send,
        known: Callable[[], RoutePlan | None],
        plan: Callable[[], RoutePlan | None],
    ) -> None:
        self._app_context = app_context
        self._send = send
        self._known = known
        self._plan = plan

    # A plain method that returns an awaitable: no frame of its own on the way out.
    def __call__(self, message: Message) -> Awaitable[None]:
        """One message on its way out."""
        if message["type"] == "http.response.start" and message.get("headers"):
            message = self._made_private(message)
        return self._send(message)

    def _made_private(self, message: Message) -> Message:
        known = self._known()
        if known is not None and not known.private:
            return message
        fields = lower_names(message["headers"])
        made = made_private(fields)
        if made is None:
            return message
        plan = known or self._plan()
        if plan is None or not plan.private:
            return message
        shared = says_shared(fields)
        if shared is not None:
            self._app_context.notices.note_private(plan.path, shared)
        return {**message, "headers": made}
