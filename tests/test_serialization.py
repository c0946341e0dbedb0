"""Messages as bytes, and agents that refuse messages that cannot be."""

from __future__ import annotations

import threading
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest

from tinygen.actors import MessageContext
from tinygen.addresses import AgentId
from tinygen.errors import ConfigError, DecodeError
from tinygen.messages import TextMessage
from tinygen.routed import ClosureAgent, RoutedAgent, message_handler
from tinygen.runtime import SingleThreadedAgentRuntime as Runtime
from tinygen.serialization import (
    JSON_DATA_CONTENT_TYPE,
    JsonMessageSerializer,
    SerializationRegistry,
    UnknownPayload,
    try_get_known_serializers_for_type,
)


@dataclass
class Point:
    x: int
    label: str | None = None


@dataclass
class Path:
    points: list[Point]


@dataclass
class Holds:
    lock: threading.Lock


class Plain:
    def __init__(self, text: str) -> None:
        self.text = text


class PlainSerializer:
    data_content_type = JSON_DATA_CONTENT_TYPE
    type_name = "Plain"

    def serialize(self, message: Plain) -> bytes:
        return message.text.encode()

    def deserialize(self, payload: bytes) -> Plain:
        return Plain(payload.decode())


class TakesPlain(RoutedAgent):
    @message_handler
    async def on_plain(self, message: Plain, ctx: MessageContext) -> str:
        return message.text


class TakesHolds(RoutedAgent):
    @message_handler
    async def on_point(self, message: Point | Holds, ctx: MessageContext) -> None: ...


@pytest.fixture
def registry() -> SerializationRegistry:
    return SerializationRegistry()


@pytest.mark.parametrize(
    "message", [Path([Point(1), Point(2, "b")]), TextMessage(content="hi", source="me"), "text", 3, {"a": [1]}]
)
def test_what_json_can_carry_comes_back_as_it_was(registry: SerializationRegistry, message: Any) -> None:
    registry.add_serializer(try_get_known_serializers_for_type(type(message)))
    name = registry.type_name(message)
    payload = registry.serialize(message)

    assert registry.is_registered(name)
    assert registry.deserialize(payload, type_name=name, data_content_type=JSON_DATA_CONTENT_TYPE) == message


def test_a_class_that_json_cannot_carry_has_no_serializer() -> None:
    assert try_get_known_serializers_for_type(Plain) == []
    assert try_get_known_serializers_for_type(Holds) == []


def test_a_message_nobody_can_read_stays_as_it_came(registry: SerializationRegistry) -> None:
    unknown = registry.deserialize(b"\xff", type_name="Elsewhere", data_content_type="application/x-protobuf")

    assert unknown == UnknownPayload("Elsewhere", "application/x-protobuf", b"\xff")
    assert registry.type_name(unknown) == "Elsewhere" and registry.serialize(unknown) == b"\xff"


def test_a_message_nobody_can_write_is_refused(registry: SerializationRegistry) -> None:
    registry.add_serializer(JsonMessageSerializer(Point))

    with pytest.raises(ConfigError, match="no serializer writes a 'Pont' as application/json; did you mean 'Point'"):
        registry.serialize(Point(1), type_name="Pont")


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b'{"x": "one"}', b'{"x": 1, "x": 2}'])
def test_bytes_that_are_no_such_message_are_refused(registry: SerializationRegistry, payload: bytes) -> None:
    registry.add_serializer(JsonMessageSerializer(Point))

    with pytest.raises(DecodeError):
        registry.deserialize(payload, type_name="Point")


def test_two_classes_of_one_name_are_only_an_error_when_one_must_be_chosen(registry: SerializationRegistry) -> None:
    twin = make_dataclass("Point", [("y", int)])
    registry.add_serializer([JsonMessageSerializer(Point), JsonMessageSerializer(Point), JsonMessageSerializer(twin)])

    with pytest.raises(DecodeError, match="2 classes go by the name 'Point'"):
        registry.deserialize(b'{"x": 1}', type_name="Point")


async def test_agents_that_take_classes_of_one_name_make_that_name_ambiguous() -> None:
    runtime = Runtime()
    for cls in (Point, make_dataclass("Point", [("y", int)]), Point):

        async def closure(agent: Any, message: Any, ctx: MessageContext) -> None: ...

        closure.__annotations__["message"] = cls
        await ClosureAgent.register_closure(runtime, f"agent{len(runtime.statistics().agent_types)}", closure)

    with pytest.raises(DecodeError, match="2 classes go by the name 'Point'"):
        runtime.serializers.deserialize(b'{"y": 1}', type_name="Point")


@pytest.mark.parametrize("agent", [TakesPlain, TakesHolds])
async def test_registration_with_a_message_that_cannot_be_carried_leaves_nothing(agent: type[RoutedAgent]) -> None:
    runtime = Runtime()
    with pytest.raises(ConfigError, match="cannot be carried in JSON"):
        await agent.register(runtime, "a", lambda: agent(""))
    with pytest.raises(ConfigError, match="cannot be carried in JSON"):
        await agent("").register_instance(runtime, AgentId("a", "x"))

    assert runtime.statistics().agent_types == [] and not runtime.serializers.is_registered("Point")


async def test_a_closure_for_a_message_that_cannot_be_carried_is_refused() -> None:
    async def closure(agent: Any, message: Holds, ctx: MessageContext) -> None: ...

    runtime = Runtime()
    with pytest.raises(ConfigError, match="cannot be carried in JSON"):
        await ClosureAgent.register_closure(runtime, "c", closure)

    assert runtime.statistics().agent_types == []


async def test_a_serializer_of_ones_own_makes_any_class_a_message() -> None:
    runtime = Runtime()
    runtime.add_message_serializer(PlainSerializer())
    await TakesPlain.register(runtime, "a", lambda: TakesPlain(""))
    runtime.start()
    carried = runtime.serializers.deserialize(runtime.serializers.serialize(Plain("hi")), type_name="Plain")

    assert await runtime.send_message(carried, AgentId("a", "x")) == "hi"
    await runtime.close()
