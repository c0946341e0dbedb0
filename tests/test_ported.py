"""Names of AutoGen's that only ported programs use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tinygen import (
    AssistantAgent,
    BaseChatMessage,
    Component,
    ComponentBase,
    ConfigError,
    DecodeError,
    MessageFactory,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    StructuredMessage,
    StructuredMessageFactory,
    TextMessage,
    extract_json_from_str,
    register_component,
    validate_model_info,
)

SUM = {
    "title": "Sum",
    "type": "object",
    "properties": {"value": {"type": "integer"}, "unit": {"enum": ["m", "s"]}},
    "required": ["value"],
}


@dataclass
class Measure:
    x: int


class Nod(BaseChatMessage):
    firmly: bool


def test_a_factory_makes_messages_of_every_declared_type() -> None:
    factory, message = MessageFactory(), Nod(firmly=True, source="ann")

    assert factory.create(message.dump()) == message
    assert [factory.is_registered(each) for each in (TextMessage, Nod)] == [True, False]


def test_a_registered_type_is_taken_for_its_name() -> None:
    mine, other = (type("Wink", (Nod,), {}) for _ in range(2))
    factory, data = MessageFactory(), {"type": "Wink", "firmly": True, "source": "ann"}
    factory.register(mine)

    assert type(factory.create(data)) is mine is not other
    with pytest.raises(ConfigError, match="'Wink' is already registered"):
        factory.register(mine)


def test_a_structured_message_can_be_registered_and_made() -> None:
    factory, kind = MessageFactory(), StructuredMessage[Measure]
    factory.register(kind)

    made = factory.create(kind(content=Measure(1), source="a").dump())

    assert factory.is_registered(kind)
    assert type(made) is kind


@pytest.mark.parametrize(
    ("data", "problem"),
    [({}, "expected the name of a message type"), ({"type": "Nonesuch"}, "'Nonesuch' is not a known")],
)
def test_a_factory_refuses_what_is_no_message_by_a_value_error(data: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        MessageFactory().create(data)
    with pytest.raises(ValueError, match="derives neither from BaseChatMessage nor"):
        MessageFactory().register(dict)  # type: ignore[arg-type]


def test_a_structured_message_can_be_made_of_a_json_schema() -> None:
    factory = StructuredMessageFactory(json_schema=SUM, format_string="{value} {unit}")
    message = factory.StructuredMessage(
        content=factory.ContentModel(value=3, unit="m"), source="a", format_string=factory.format_string
    )

    assert (message.type, message.content.value, message.to_text()) == ("StructuredMessage[Sum]", 3, "3 m")
    assert message.dump()["content"] == {"value": 3, "unit": "m"}
    assert factory.StructuredMessage.load(message.dump()) == message


@pytest.mark.parametrize("content", [{}, {"value": "3"}, {"value": 3, "unit": "h"}, [3]])
def test_content_that_does_not_fit_the_schema_is_refused(content: Any) -> None:
    factory = StructuredMessageFactory(json_schema=SUM)

    with pytest.raises(DecodeError, match=r"^\$\.content: Sum refuses this: \$"):
        factory.StructuredMessage.load({"content": content, "source": "a"})


def test_a_structured_message_can_be_made_of_a_type() -> None:
    factory = StructuredMessageFactory(input_model=Measure)

    assert factory.StructuredMessage is StructuredMessage[Measure]
    with pytest.raises(ConfigError, match="one of json_schema and input_model"):
        StructuredMessageFactory()


def test_a_factory_is_written_as_its_schema() -> None:
    factory = StructuredMessageFactory(json_schema=SUM, format_string="{value}", content_model_name="Total")
    again = StructuredMessageFactory.load_component(json.loads(factory.dump_component().model_dump_json()))

    assert again.ContentModel.model_json_schema() == SUM
    assert (again.ContentModel.__name__, again.format_string) == ("Total", "{value}")


async def test_an_assistant_of_autogens_with_structured_answers_loads() -> None:
    model = ReplayChatCompletionClient(['{"value": "much"}', '{"value": 4}'])
    factory = {
        "provider": "autogen_agentchat.messages.StructuredMessageFactory",
        "component_type": "structured_message",
        "config": {"json_schema": SUM, "format_string": "it is {value}", "content_model_name": "Sum"},
    }
    config = {"name": "a", "model_client": model.dump_component().model_dump(), "structured_message_factory": factory}
    document = {"provider": "autogen_agentchat.agents.AssistantAgent", "component_version": 2, "config": config}
    team, later = (RoundRobinGroupChat([AssistantAgent.load_component(document)], max_turns=1) for _ in range(2))

    message = (await team.run(task="how much?")).messages[-1]
    await later.load_state(await team.save_state())

    assert (message.type, message.to_text()) == ("StructuredMessage[Sum]", "it is 4")
    assert await later.save_state() == await team.save_state()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', [{"a": 1}]),
        ('first\n```json\n{"a": 1}\n```\nthen\n```\n[2]\n```\n', [{"a": 1}, [2]]),
    ],
)
def test_json_is_found_in_code_blocks_or_is_the_whole_text(text: str, found: list[Any]) -> None:
    assert extract_json_from_str(text) == found


@pytest.mark.parametrize("text", ["words", "```python\n{}\n```", "```json\n{]\n```"])
def test_text_without_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        extract_json_from_str(text)


def test_a_model_info_is_looked_at() -> None:
    info = {"vision": False, "function_calling": True, "json_output": True, "family": "unknown"}

    validate_model_info(info | {"structured_output": True})
    with pytest.warns(UserWarning, match="lacks 'structured_output'"):
        validate_model_info(info)
    with pytest.raises(ValueError, match="lacks 'vision', 'json_output'"):
        validate_model_info({"function_calling": True, "family": "unknown"})


def test_a_component_may_derive_from_autogens_two_bases() -> None:
    class Shape(ComponentBase[Any]):
        component_type = "shape"

    class Square(Shape, Component[Any]):
        def __init__(self, side: int) -> None:
            self.side = side

    class Circle(ComponentBase[Any], Component[Any]): ...

    register_component(Square, "tests.Square")

    assert Shape.load_component(Square(3).dump_component()).side == 3  # type: ignore[attr-defined]
    assert isinstance(Circle(), Component)
