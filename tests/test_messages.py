"""Records: declared with bare annotations, compared by value, known by their tag, dumped in AutoGen's shapes."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal

import pytest

from tinygen import (
    AgentId,
    AssistantMessage,
    BaseChatMessage,
    ConfigError,
    DecodeError,
    FunctionCall,
    HandoffMessage,
    Image,
    LLMMessage,
    MemoryContent,
    MultiModalMessage,
    Record,
    RequestUsage,
    StopMessage,
    StructuredMessage,
    SystemMessage,
    TaskResult,
    TextMessage,
    UserMessage,
    content_to_str,
    remove_images,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Place:
    x: int


class Vote(BaseChatMessage):
    """A message type of one's own."""

    choice: str
    type: Literal["Vote"] = "Vote"

    def to_text(self) -> str:
        return self.choice

    def to_model_text(self) -> str:
        return self.choice


def test_a_text_message_has_autogens_json_shape() -> None:
    message = TextMessage(id="1", content="hi", source="u", created_at=AT, models_usage=RequestUsage(1, 2))
    assert message.dump() == {
        "id": "1",
        "source": "u",
        "models_usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "metadata": {},
        "created_at": "2026-01-02T03:04:05Z",
        "content": "hi",
        "type": "TextMessage",
    }


def test_a_handoff_dumps_its_context_by_type() -> None:
    context = [
        AssistantMessage(content=[FunctionCall("1", "{}", "f")], source="a"),
        UserMessage(content="u", source="b"),
    ]
    message = HandoffMessage(content="over", target="b", source="a", context=context)
    dumped = message.dump()["context"]
    assert dumped[0] == {
        "content": [{"id": "1", "arguments": "{}", "name": "f"}],
        "thought": None,
        "source": "a",
        "type": "AssistantMessage",
    }
    assert HandoffMessage.load(message.dump()) == message


def test_a_message_type_of_ones_own_loads_through_its_base() -> None:
    vote = Vote(choice="yes", source="a")
    result = TaskResult(messages=[vote, TextMessage(content="x", source="b")])
    assert TaskResult.model_validate_json(result.model_dump_json()) == result


def test_a_structured_message_is_a_class_of_its_own() -> None:
    message = StructuredMessage[Place](content=Place(1), source="a", format_string="x={x}")
    assert StructuredMessage[Place] is StructuredMessage[Place]
    assert isinstance(message, StructuredMessage)
    assert (message.type, message.to_text()) == ("StructuredMessage[Place]", "x=1")
    assert message.to_model_message().content == '{"x":1}'
    assert BaseChatMessage.load(message.dump()) == message


def test_a_structured_message_survives_pickling_and_copying() -> None:
    message = StructuredMessage[Place](content=Place(1), source="a")
    for twin in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message), message.model_copy(deep=True)):
        assert twin == message
        assert type(twin) is StructuredMessage[Place]


def test_what_is_wrong_with_a_construction_is_said_of_the_class_constructed() -> None:
    with pytest.raises(TypeError, match=r"^TextMessage.__init__\(\) missing .* 'source'"):
        TextMessage(content="hi")  # type: ignore[call-arg]


def test_a_record_that_another_thread_makes_for_the_first_time_too_is_made_right() -> None:
    class Fresh(Record):
        x: int

    begun = Fresh.__init__  # as a thread has it that is in the middle of making its first one
    Fresh(x=1)
    second = Fresh.__new__(Fresh)
    begun(second, x=2)

    assert second == Fresh(x=2)


def test_a_positional_field_that_must_be_given_cannot_follow_one_that_need_not() -> None:
    with pytest.raises(ConfigError, match="field 'b' of Pair has no default, but follows 'a'"):

        class Pair(Record, kw_only=False):
            a: int = 1
            b: int


def test_a_field_that_the_constructor_does_not_take_has_its_default_all_the_same() -> None:
    class Tally(Record):
        name: str
        seen: list[str] = field(default_factory=list, init=False)
        most: int = field(default=3, init=False)

    one, other = Tally(name="a"), Tally.load({"name": "a"})

    assert one == other == Tally(name="a")
    assert (one.seen, one.most) == ([], 3)
    assert one.seen is not other.seen


def test_records_answer_to_pydantics_names() -> None:
    message = TextMessage(content="hi", source="u")
    assert TextMessage.model_validate(message.model_dump()) == message
    assert TextMessage.model_validate(message) is message
    assert json.loads(message.model_dump_json())["content"] == "hi"
    assert message.model_copy(update={"content": "ho"}).content == "ho"
    assert "models_usage" not in message.model_dump(exclude_none=True)
    assert set(message.model_dump(include={"id", "content"})) == {"id", "content"}
    assert json.loads(message.model_dump_json(include={"content"})) == {"content": "hi"}
    assert "id" not in json.loads(message.model_dump_json(exclude={"id"}))
    assert TextMessage.model_json_schema()["required"][0] == "source"


def test_json_text_is_as_pydantic_writes_it() -> None:
    usage = RequestUsage(1, 2)

    assert usage.model_dump_json() == '{"prompt_tokens":1,"completion_tokens":2}'
    assert usage.model_dump_json(indent=1) == '{\n "prompt_tokens": 1,\n "completion_tokens": 2\n}'


def test_fields_that_are_none_are_left_out_of_records_inside_too() -> None:
    asked = UserMessage(content="hi", source="u")
    message = HandoffMessage(content="x", source="a", target="b", context=[asked], metadata={"k": "v"})

    dumped = TaskResult(messages=[message]).model_dump(exclude_none=True)

    assert dumped.keys() & {"messages", "stop_reason"} == {"messages"}
    assert dumped["messages"] == [message.model_dump(exclude_none=True)]
    assert "models_usage" not in dumped["messages"][0]
    assert dumped["messages"][0]["context"] == [asked.dump()]
    assert MemoryContent(content={"a": None}, mime_type="x").model_dump(exclude_none=True) == {
        "content": {"a": None},
        "mime_type": "x",
    }


def test_records_compare_by_value_and_are_not_hashable() -> None:
    assert RequestUsage(1, 2) == RequestUsage(1, 2) != RequestUsage(2, 1)
    assert TextMessage(id="1", content="x", source="u", created_at=AT) != Vote(
        id="1", choice="x", source="u", created_at=AT
    )
    with pytest.raises(TypeError):
        hash(RequestUsage(1, 2))


def test_a_record_prints_its_fields() -> None:
    assert repr(RequestUsage(1, 2)) == "RequestUsage(prompt_tokens=1, completion_tokens=2)"


def test_a_wrong_field_name_is_refused_by_the_constructor() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'contents'"):
        TextMessage(contents="x", source="u")  # type: ignore[call-arg]


def test_what_does_not_load_says_where() -> None:
    dumped = TaskResult(messages=[TextMessage(content="x", source="u")]).dump()
    dumped["messages"][0]["content"] = 5
    with pytest.raises(DecodeError, match=r"\$\.messages\[0\]\.content"):
        TaskResult.load(dumped)


def test_a_record_of_ones_own_need_not_be_a_message() -> None:
    class Point(Record):
        x: int
        y: int = 0

    assert Point.load(Point(x=1).dump()) == Point(x=1)


def test_pictures_keep_their_bytes() -> None:
    picture = Image(PNG)
    assert Image.from_uri(picture.data_uri) == Image.from_base64(picture.to_base64()) == picture
    assert picture.to_openai_format("low")["image_url"]["detail"] == "low"
    assert picture._repr_html_() == f'<img src="{picture.data_uri}"/>'
    message = MultiModalMessage(content=["see", picture], source="u")
    assert MultiModalMessage.load(message.dump()) == message
    assert (message.to_text(), message.to_model_text()) == ("see\n<image>", "see\n[image]")
    assert (content_to_str(message.content), content_to_str("see")) == ("see\n<image>", "see")
    seen, said = UserMessage(content=["see", picture], source="u"), SystemMessage(content="look")
    assert remove_images([said, seen]) == [said, UserMessage(content="see\n<image>", source="u")]


@pytest.mark.parametrize(
    "uri", ["http://x/y.png", "data:image/gif;base64,AAAA", "data:image/png;base64,!!", "", "data:,x"]
)
def test_a_uri_that_holds_no_picture_is_refused(uri: str) -> None:
    with pytest.raises(ValueError):
        Image.from_uri(uri)


def test_records_pictures_and_addresses_stand_in_pydantic_models() -> None:
    import pydantic

    class Task(pydantic.BaseModel):
        context: list[LLMMessage]
        picture: Image
        who: AgentId
        said: list[TextMessage | StopMessage]

    task = Task(
        context=[UserMessage(content="a", source="u"), AssistantMessage(content="b", source="x")],
        picture=Image(PNG),
        who=AgentId("writer", "1"),
        said=[StopMessage(content="s", source="a"), TextMessage(content="t", source="b")],
    )
    assert Task.model_validate_json(task.model_dump_json()) == task
    assert set(Task.model_json_schema()["properties"]) == {"context", "picture", "who", "said"}
    with pytest.raises(pydantic.ValidationError, match="Nope"):
        Task.model_validate({**task.model_dump(), "context": [{"type": "Nope"}]})


def test_what_autogen_does_not_know_is_written_only_where_it_says_something() -> None:
    assert RequestUsage(1, 2).dump() == {"prompt_tokens": 1, "completion_tokens": 2}
    assert RequestUsage(1, 2, cached_tokens=1).dump() == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "cached_tokens": 1,
    }
    assert "provider_data" not in AssistantMessage(content="hi", source="a").dump()


def test_provider_data_comes_back_from_json() -> None:
    message = AssistantMessage(content="hi", source="a", provider_data={"anthropic": [{"signature": "x"}]})
    assert AssistantMessage.load(message.dump()) == message


def test_the_sum_of_an_estimate_is_an_estimate() -> None:
    total = RequestUsage(1, 2, cached_tokens=1, estimated=True) + RequestUsage(3, 4, reasoning_tokens=2)
    assert total == RequestUsage(4, 6, cached_tokens=1, reasoning_tokens=2, estimated=True)
