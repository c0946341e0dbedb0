"""AutoGen's structured log events, made of the event tree: one line of JSON for each call and each message.

    logging.getLogger("tinygen.events").addHandler(handler)  # record.msg is the event, str() of it the JSON
    with log_events():
        await team.run(task="...")

A reader of `telemetry.listen` like any other. The last events are remembered, since an end needs what its start said.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from contextlib import contextmanager
from enum import Enum

from . import codec
from .errors import EncodeError
from .messages import CreateResult
from .records import Record
from .telemetry import listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .telemetry import Event

TRACE_LOGGER_NAME = "tinygen"  # the loggers for people are below it
EVENT_LOGGER_NAME = "tinygen.events"
REMEMBERED = 10_000  # events that an end, or what is inside of them, may still refer to


class MessageKind(Enum):
    """How a message goes: to one agent, to a topic, or back to who asked."""

    DIRECT = 1
    PUBLISH = 2
    RESPOND = 3


class DeliveryStage(Enum):
    """Whether a message is sent or delivered."""

    SEND = 1
    DELIVER = 2


class LogEvent(Record, tagged=False):
    """Base of all log events. `str()` gives JSON with a `type` and the fields."""

    def __str__(self) -> str:
        fields = {"type": type(self).__name__.removesuffix("Event"), **vars(self)}
        return json.dumps(fields, default=str, ensure_ascii=False)


class LLMCallEvent(LogEvent):
    """A model was asked."""

    messages: list[dict[str, Any]]
    response: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int
    agent_id: str | None


class LLMStreamStartEvent(LogEvent):
    """A model begins to answer in pieces."""

    messages: list[dict[str, Any]]
    agent_id: str | None


class LLMStreamEndEvent(LogEvent):
    """A model has answered in pieces."""

    response: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int
    agent_id: str | None


class ToolCallEvent(LogEvent):
    """A tool was called."""

    tool_name: str
    arguments: dict[str, Any]
    result: str
    agent_id: str | None


class MessageEvent(LogEvent):
    """A message was sent, or delivered. Sender and receiver are agents or topics, as text."""

    payload: str
    sender: str | None
    receiver: str | None
    kind: MessageKind
    delivery_stage: DeliveryStage


class MessageDroppedEvent(LogEvent):
    """An intervention dropped a message."""

    payload: str
    sender: str | None
    receiver: str | None
    kind: MessageKind


class MessageHandlerExceptionEvent(LogEvent):
    """An agent failed with a message."""

    payload: str
    handling_agent: str
    exception: str


class AgentConstructionExceptionEvent(LogEvent):
    """An agent could not be made."""

    agent_id: str
    exception: str


@contextmanager
def log_events(logger: logging.Logger | str = EVENT_LOGGER_NAME) -> Iterator[None]:
    """Log, at level INFO, what happens in runs, in runtimes started, and in model calls made inside the block.

    Args:
        logger: where to; AutoGen's was "autogen_core.events".
    """
    target = logging.getLogger(logger) if isinstance(logger, str) else logger
    with listen(LogEventReader(target.info)):
        yield


class LogEventReader:
    """A listener that turns events into log events, and gives them to `tell`."""

    def __init__(self, tell: Callable[[LogEvent], Any]) -> None:
        self._tell = tell
        self._known: OrderedDict[str, Event] = OrderedDict()

    def __call__(self, event: Event) -> None:
        read = _READERS.get((event.kind, event.phase))
        made = read(self, event) if read is not None else None
        if event.phase == "end":
            self._known.pop(event.id, None)
        elif event.kind != "message":
            self._known[event.id] = event
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if made is not None:
            self._tell(made)

    def agent_of(self, event: Event) -> str | None:
        """The agent in whose turn, or whose handler, something happened."""
        above = self._known.get(event.parent or "")
        while above is not None:
            if above.kind in ("agent", "handle"):
                return above.name
            above = self._known.get(above.parent or "")
        from .addresses import current_agent

        handling = current_agent.get(None)
        return str(handling) if handling is not None else None

    def started(self, event: Event) -> dict[str, Any]:
        """What the start of `event` said."""
        start = self._known.get(event.id)
        return {} if start is None else start.data

    def _model_start(self, event: Event) -> LogEvent | None:
        if not event.data.get("stream"):
            return None
        return LLMStreamStartEvent(messages=_data(event.data["request"]["messages"]), agent_id=self.agent_of(event))

    def _model_end(self, event: Event) -> LogEvent | None:
        agent, start, result = self.agent_of(event), self.started(event), event.data.get("result")
        if not isinstance(result, CreateResult) or not start:
            return None  # it failed, as AutoGen's do without a word, or is somebody's own kind of model
        told: dict[str, Any] = {
            "response": _data(result),
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.completion_tokens,
            "agent_id": agent,
        }
        if start["stream"]:
            return LLMStreamEndEvent(**told)
        return LLMCallEvent(messages=_data(start["request"]["messages"]), **told)

    def _tool_end(self, event: Event) -> LogEvent:
        agent, request, result = self.agent_of(event), self.started(event).get("request", {}), event.data.get("result")
        arguments = request.get("arguments", "{}") if isinstance(request, dict) else {"request": _data(request)}
        return ToolCallEvent(
            tool_name=event.name,
            arguments=_arguments(arguments),
            result=event.data.get("error", "") if result is None else str(getattr(result, "content", result)),
            agent_id=agent,
        )

    def _sent(self, event: Event) -> LogEvent:
        data, kind = event.data, MessageKind.DIRECT if event.kind == "send" else MessageKind.PUBLISH
        return _message(data["message"], data["sender"], data["recipient"], kind, DeliveryStage.SEND)

    def _delivered(self, event: Event) -> LogEvent:
        data, kind = event.data, MessageKind.DIRECT if event.data["rpc"] else MessageKind.PUBLISH
        return _message(data["message"], self._sender(event), data["agent"], kind, DeliveryStage.DELIVER)

    def _handled(self, event: Event) -> LogEvent | None:
        data = event.data
        if "error" in data:
            return MessageHandlerExceptionEvent(
                payload=_text(data["message"]), handling_agent=event.name, exception=repr(data["error"])
            )
        if not data["rpc"]:
            return None
        return _message(data.get("answer"), event.name, self._sender(event), MessageKind.RESPOND, DeliveryStage.SEND)

    def _dropped(self, event: Event) -> LogEvent:
        data, how = event.data, str(event.data.get("by")).rpartition(".")[2]
        kinds = {"on_send": MessageKind.DIRECT, "on_publish": MessageKind.PUBLISH}
        context = data.get("message_context")
        return MessageDroppedEvent(
            payload=_text(data["message"]),
            sender=_name(data.get("sender") if context is None else context.sender),
            receiver=_name(data.get("recipient") or getattr(context, "topic_id", None)),
            kind=kinds.get(how, MessageKind.RESPOND),
        )

    def _not_made(self, event: Event) -> LogEvent | None:
        if "error" not in event.data:
            return None
        return AgentConstructionExceptionEvent(agent_id=_name(event.data["agent"]), exception=repr(event.data["error"]))

    def _sender(self, event: Event) -> Any:
        sent = self._known.get(event.parent or "")
        return None if sent is None else sent.data.get("sender")


_READERS: dict[tuple[str, str], Callable[[LogEventReader, Event], LogEvent | None]] = {
    ("model", "start"): LogEventReader._model_start,
    ("model", "end"): LogEventReader._model_end,
    ("tool", "end"): LogEventReader._tool_end,
    ("send", "point"): LogEventReader._sent,
    ("publish", "point"): LogEventReader._sent,
    ("handle", "start"): LogEventReader._delivered,
    ("handle", "end"): LogEventReader._handled,
    ("drop", "point"): LogEventReader._dropped,
    ("make", "point"): LogEventReader._not_made,
}


def _message(message: Any, sender: Any, receiver: Any, kind: MessageKind, stage: DeliveryStage) -> MessageEvent:
    return MessageEvent(
        payload=_text(message), sender=_name(sender), receiver=_name(receiver), kind=kind, delivery_stage=stage
    )


def _name(who: Any) -> Any:
    return None if who is None else str(who)


def _data(value: Any) -> Any:
    try:
        return codec.encode(value)
    except EncodeError:
        return repr(value)


def _text(message: Any) -> str:
    """A message as JSON text, as far as it can be."""
    try:
        return codec.dumps(message)
    except EncodeError:
        return "Message could not be serialized"


def _arguments(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return {"arguments": text}  # as the model wrote them
