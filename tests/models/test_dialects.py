"""What each provider accepts, and how conversations and schemas are made to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialect_rules import violations
from tinygen.errors import ConfigError
from tinygen.messages import (
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from tinygen.models.dialects import (
    ANTHROPIC,
    CHAT,
    DEEPSEEK,
    DIALECTS,
    GEMINI,
    MISTRAL,
    OLLAMA,
    OPENAI,
    RESPONSES,
    Dialect,
    call_arguments,
    fitted_schema,
    normalise,
)

SINGLE = replace(CHAT, name="single", parallel_calls=False)
EVERY = [*DIALECTS.values(), SINGLE]
PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))


def system(text: str = "be brief") -> SystemMessage:
    return SystemMessage(content=text)


def user(content: Any = "hello", source: str = "user") -> UserMessage:
    return UserMessage(content=content, source=source)


def said(content: Any = "hi", thought: str | None = None, kept: Any = None) -> AssistantMessage:
    return AssistantMessage(content=content, thought=thought, source="bot", provider_data=kept)


def calls(*identities: str, name: str = "f", thought: str | None = None) -> AssistantMessage:
    return said([FunctionCall(id=each, arguments="{}", name=name) for each in identities], thought)


def results(*identities: str, name: str = "f", text: str = "") -> FunctionExecutionResultMessage:
    return FunctionExecutionResultMessage(
        content=[FunctionExecutionResult(content=text or f"of {each}", name=name, call_id=each) for each in identities]
    )


def shape(messages: Any) -> list[Any]:
    """A conversation in short: who, and what."""
    words: list[Any] = []
    for message in messages:
        if isinstance(message, FunctionExecutionResultMessage):
            words.append({each.call_id: each.content for each in message.content})
        elif isinstance(message.content, str):
            words.append(f"{type(message).__name__[0]}:{message.content}")
        elif isinstance(message, AssistantMessage):
            words.append([call.id for call in message.content])  # type: ignore[union-attr]
        else:
            words.append(list(message.content))
    return words


# --- what changes nothing


@pytest.mark.parametrize("dialect", EVERY, ids=lambda each: each.name)
def test_a_conversation_that_every_provider_accepts_comes_back_as_the_same_object(dialect: Dialect) -> None:
    if dialect is SINGLE:
        talk: list[LLMMessage] = [system(), user(), calls("abcdefgh1"), results("abcdefgh1"), said(), user()]
    else:
        talk = [system(), user(), calls("abcdefgh1", "abcdefgh2"), results("abcdefgh1", "abcdefgh2"), said(), user()]

    assert normalise(talk, dialect) is talk


def test_only_the_messages_that_do_not_fit_are_made_anew() -> None:
    talk = [user(), calls("1"), results("1"), user(), calls("1"), results("1"), said()]

    fitted = normalise(talk, CHAT)

    assert [a is b for a, b in zip(fitted, talk)] == [True, True, True, True, False, False, True]


def test_what_is_no_message_is_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="is not a message for a model"):
        normalise([user(), {"role": "user"}], OPENAI)  # type: ignore[list-item]


# --- what every provider would refuse


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    fitted = normalise([user(), calls("a", "b"), results("a"), said()], OPENAI)

    assert shape(fitted) == [
        "U:hello",
        ["a", "b"],
        {"a": "of a", "b": "This call has no result: it was not finished."},
        "A:hi",
    ]
    assert fitted[2].content[1].is_error is True  # type: ignore[union-attr]


def test_a_result_without_a_call_gets_one_so_that_the_model_still_learns_of_it() -> None:
    fitted = normalise([results("a", "b", name="look"), user()], OPENAI)

    assert shape(fitted) == [["a", "b"], {"a": "of a", "b": "of b"}, "U:hello"]
    assert [call.name for call in fitted[0].content] == ["look", "look"]  # type: ignore[union-attr]


def test_results_are_moved_directly_behind_their_calls_and_into_their_order() -> None:
    fitted = normalise([calls("a", "b"), user("wait"), results("b"), results("a")], OPENAI)

    assert shape(fitted) == [["a", "b"], {"a": "of a", "b": "of b"}, "U:wait"]


def test_a_result_at_its_place_under_another_id_is_matched_by_the_name_of_the_tool() -> None:
    fitted = normalise([calls("a"), results("zzz")], OPENAI)

    assert shape(fitted) == [["a"], {"a": "of zzz"}]


def test_ids_that_occur_in_every_turn_are_told_apart_each_with_its_own_result() -> None:
    fitted = normalise([calls("0"), results("0", text="one"), calls("0"), results("0", text="two")], OPENAI)

    first, again = fitted[0].content[0].id, fitted[2].content[0].id  # type: ignore[union-attr]
    assert first == "0" and again not in ("", "0")
    assert shape(fitted)[1::2] == [{"0": "one"}, {again: "two"}]


def test_an_unanswered_call_does_not_take_the_result_of_a_later_one_with_its_id() -> None:
    fitted = normalise([calls("0"), user(), calls("0"), results("0", text="two")], OPENAI)

    assert list(shape(fitted)[1].values()) == ["This call has no result: it was not finished."]
    assert list(shape(fitted)[4].values()) == ["two"]


def test_a_name_that_a_model_made_up_is_written_as_providers_allow_it() -> None:
    fitted = normalise([calls("a", name="look up!"), results("a", name="look up!")], OPENAI)

    assert fitted[0].content[0].name == "look_up_"  # type: ignore[union-attr]
    assert fitted[1].content[0].name == "look_up_"  # type: ignore[union-attr]


def test_what_a_provider_wants_back_stays_with_calls_that_are_made_anew() -> None:
    talk = [calls("0"), results("0"), calls("0"), results("0")]
    talk[2].provider_data = {"anthropic": [1]}  # type: ignore[union-attr]

    assert normalise(talk, ANTHROPIC)[3].provider_data == {"anthropic": [1]}  # type: ignore[union-attr]


# --- what single providers refuse


def test_system_messages_in_the_middle_are_joined_at_the_front_where_only_one_is_accepted() -> None:
    talk = [system("a"), user(), system("b"), said()]

    assert normalise(talk, OPENAI) is talk
    assert shape(normalise(talk, ANTHROPIC)) == ["S:a\nb", "U:hello", "A:hi"]


def test_mistral_gets_ids_of_nine_letters_the_same_ones_each_time() -> None:
    talk = [user(), calls("call_R52CnFTPli0v0yaGZbZYrvYA"), results("call_R52CnFTPli0v0yaGZbZYrvYA"), user()]

    fitted = normalise(talk, MISTRAL)

    identity = fitted[1].content[0].id  # type: ignore[union-attr]
    assert len(identity) == 9 and identity.isalnum()
    assert shape(fitted) == shape(normalise(talk, MISTRAL))
    assert shape(fitted)[2:] == [
        {identity: "of call_R52CnFTPli0v0yaGZbZYrvYA"},
        "A:Noted.",
        "U:hello",
    ]


def test_mistral_gets_no_text_beside_calls_and_no_answer_at_the_end() -> None:
    fitted = normalise([user(), calls("abcdefgh1", thought="hm"), results("abcdefgh1"), said()], MISTRAL)

    assert fitted[1].thought is None  # type: ignore[union-attr]
    assert shape(fitted)[-2:] == ["A:hi", "U:Go on."]


def test_ids_longer_than_openai_takes_are_shortened() -> None:
    long = "x" * 41

    assert shape(normalise([calls(long), results(long)], OPENAI))[0][0] != long
    assert shape(normalise([calls(long), results(long)], RESPONSES))[0][0] == long


def test_empty_texts_are_left_out_or_named_where_they_are_refused() -> None:
    talk = [system(""), user(" "), said(""), user(["", PICTURE]), user([""]), said("\n")]

    assert normalise(talk, OPENAI) is talk
    assert shape(normalise(talk, ANTHROPIC)) == ["U:(empty)", [PICTURE], "U:(empty)"]


def test_a_conversation_that_a_user_must_begin_is_begun_by_one() -> None:
    assert shape(normalise([system()], GEMINI)) == ["S:be brief", "U:(Earlier messages are left out.)"]
    assert shape(normalise([said(), user()], ANTHROPIC))[0] == "U:(Earlier messages are left out.)"


def test_an_answer_to_be_continued_ends_without_white_space_for_anthropic() -> None:
    assert shape(normalise([user(), said("Once upon \n")], ANTHROPIC)) == ["U:hello", "A:Once upon"]


def test_neighbours_of_one_role_are_joined_where_roles_must_alternate() -> None:
    fitted = normalise([user("a"), user(["b", PICTURE]), said("c"), said("d"), user()], DIALECTS["perplexity"])

    assert shape(fitted) == [["a", "b", PICTURE], "A:c\n\nd", "U:hello"]


def test_calls_side_by_side_become_single_ones_where_that_is_all_a_model_knows() -> None:
    fitted = normalise([calls("a", "b", thought="hm"), results("a", "b")], SINGLE)

    assert shape(fitted) == [["a"], {"a": "of a"}, ["b"], {"b": "of b"}]
    assert [fitted[0].thought, fitted[2].thought] == ["hm", None]  # type: ignore[union-attr]


# --- every conversation

identities = st.sampled_from(["0", "1", "", "abcdefgh1", "x" * 70, "call_1"])
names = st.sampled_from(["f", "g", "a b", ""])
texts = st.sampled_from(["hello", "", " ", "a ", "\n"])
a_call = st.builds(FunctionCall, identities, st.sampled_from(["{}", "", '{"a": 1}', "{"]), names)
a_result = st.builds(FunctionExecutionResult, content=texts, name=names, call_id=identities)
a_message = st.one_of(
    st.builds(SystemMessage, content=texts),
    st.builds(UserMessage, content=st.one_of(texts, st.lists(st.one_of(texts, st.just(PICTURE)))), source=names),
    st.builds(AssistantMessage, content=texts, source=names),
    st.builds(AssistantMessage, content=st.lists(a_call, max_size=3), thought=st.none() | texts, source=names),
    st.builds(FunctionExecutionResultMessage, content=st.lists(a_result, max_size=3)),
)


@given(st.lists(a_message, max_size=9), st.sampled_from(EVERY))
def test_whatever_is_said_fits_afterwards_and_fits_for_good(talk: list[LLMMessage], dialect: Dialect) -> None:
    fitted = normalise(talk, dialect)

    assert violations(fitted, dialect) == []
    assert normalise(fitted, dialect) is fitted


@given(st.lists(a_message, max_size=9), st.sampled_from(EVERY))
def test_no_result_of_a_tool_is_ever_lost(talk: list[LLMMessage], dialect: Dialect) -> None:
    def contents(messages: Any) -> list[str]:
        shown = [m.content for m in messages if isinstance(m, FunctionExecutionResultMessage)]
        return sorted(r.content for content in shown for r in content if not r.content.startswith("This call has no"))

    assert contents(normalise(talk, dialect)) == contents(talk)


# --- arguments, fields, schemas


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ("[1]", {"invalid_json": "[1]"}),
        ('{"a"', {"invalid_json": '{"a"'}),
        ("[" * 100_000, {"invalid_json": "[" * 100_000}),
        ('{"a": NaN}', {"invalid_json": '{"a": NaN}'}),
    ],
)
def test_arguments_are_an_object_whatever_the_model_wrote(text: str, arguments: dict[str, Any]) -> None:
    assert call_arguments(FunctionCall("1", text, "f")) == arguments


@pytest.mark.parametrize(
    ("dialect", "model", "fitted"),
    [
        (OPENAI, "gpt-4o", {"temperature": 0, "max_tokens": 5, "seed": 1}),
        (OPENAI, "o3-mini", {"max_completion_tokens": 5, "seed": 1}),
        (OPENAI, "openai/gpt-5-mini", {"max_completion_tokens": 5, "seed": 1}),
        (OPENAI, "gpt-5-chat-latest", {"temperature": 0, "max_tokens": 5, "seed": 1}),
        (OPENAI, "gpt-5.1", {"temperature": 0, "max_tokens": 5, "seed": 1}),
        (RESPONSES, "o3", {"max_output_tokens": 5, "seed": 1}),
        (MISTRAL, "mistral-small", {"temperature": 0, "max_tokens": 5, "random_seed": 1}),
        (DIALECTS["cerebras"], "gpt-oss", {"temperature": 0, "max_completion_tokens": 5, "seed": 1}),
    ],
)
def test_fields_get_the_names_that_a_model_knows(dialect: Dialect, model: str, fitted: dict[str, Any]) -> None:
    assert dialect.fitted_fields(model, {"temperature": 0, "max_tokens": 5, "seed": 1}) == fitted


TREE: dict[str, Any] = {
    "type": "object",
    "$defs": {
        "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "n": {"type": "integer"}}},
        "Kind": {"const": "leaf"},
    },
    "properties": {
        "root": {"$ref": "#/$defs/Node", "description": "where it begins"},
        "kind": {"$ref": "#/$defs/Kind"},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
        "many": {"type": ["array", "null"]},
        "count": {"type": "integer", "exclusiveMinimum": 0, "description": "how many"},
        "size": {"enum": [1, 2]},
    },
    "required": ["root"],
    "additionalProperties": False,
}


def test_a_schema_for_gemini_has_no_references_and_says_null_its_own_way() -> None:
    fitted = fitted_schema(TREE, GEMINI)

    assert fitted == {
        "type": "object",
        "properties": {
            "root": {
                "type": "object",
                "properties": {
                    "next": {"type": "object", "description": "as Node above"},
                    "n": {"type": "integer"},
                },
                "description": "where it begins",
            },
            "kind": {"enum": ["leaf"], "type": "string"},
            "when": {"type": "string", "nullable": True, "description": '(format: "date")'},
            "many": {"type": "array", "nullable": True, "items": {"type": "string"}},
            "count": {"type": "integer", "description": "how many (exclusiveMinimum: 0)"},
            "size": {"description": "One of [1, 2]."},
        },
        "required": ["root"],
    }


def test_an_answers_schema_for_anthropic_closes_every_object_and_says_limits_in_words() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}, "o": {"$ref": "#/$defs/O"}}}
    schema["$defs"] = {"O": {"type": "object", "properties": {}}}

    assert fitted_schema(schema, ANTHROPIC) == schema
    assert fitted_schema(schema, ANTHROPIC, output=True) == {
        "type": "object",
        "properties": {"n": {"type": "integer", "description": "(minimum: 1)"}, "o": {"$ref": "#/$defs/O"}},
        "$defs": {"O": {"type": "object", "properties": {}, "additionalProperties": False}},
        "additionalProperties": False,
    }


def test_ollama_sees_what_the_references_of_a_tool_stand_for() -> None:
    schema = {"type": "object", "properties": {"o": {"$ref": "#/$defs/O"}}, "$defs": {"O": {"type": "string"}}}

    assert fitted_schema(schema, OLLAMA)["properties"] == {"o": {"type": "string"}}
    assert fitted_schema(schema, OLLAMA, output=True) == schema


@pytest.mark.parametrize("dialect", [OPENAI, RESPONSES, CHAT, DEEPSEEK], ids=lambda each: each.name)
def test_a_schema_is_left_as_it_is_where_all_are_accepted(dialect: Dialect) -> None:
    assert fitted_schema(TREE, dialect) == fitted_schema(TREE, dialect, output=True) == TREE


def test_fitting_a_schema_leaves_the_one_that_was_given_untouched() -> None:
    before = repr(TREE)

    for dialect in EVERY:
        fitted_schema(TREE, dialect)
        fitted_schema(TREE, dialect, output=True)

    assert repr(TREE) == before
