"""What each provider accepts, and how conversations and schemas are made to fit."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any
from weakref import ref

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
from tinygen.models.asks import Ask
from tinygen.models.conversations import Conversations, normalise
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
    fitted_schema,
    with_fitting_names,
)
from tinygen.models.wire import call_arguments

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


@pytest.mark.parametrize(
    "message",
    [said(["no call"]), said([results("a").content[0]]), FunctionExecutionResultMessage(content=[None])],  # type: ignore[list-item]
)
def test_a_message_that_holds_no_calls_or_results_is_refused_with_a_sentence(message: LLMMessage) -> None:
    with pytest.raises(ConfigError, match="expected Function"):
        Conversations(CHAT, repr).fitted([message])


def test_what_is_no_message_is_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="is not a message for a model"):
        Conversations(OPENAI, repr).fitted([user(), {"role": "user"}])  # type: ignore[list-item]


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


@pytest.mark.parametrize("dialect", [MISTRAL, OPENAI], ids=lambda each: each.name)
def test_what_is_made_of_a_conversation_that_does_not_fit_is_made_once(dialect: Dialect) -> None:
    talk = [
        user(),
        *(each for _ in range(3) for each in (calls("x" * 50, "b"), results("b", "x" * 50), said(), user())),
    ]
    conversations = Conversations(dialect, repr)
    first, _, texts = conversations.fitted(talk)

    again, _, same = conversations.fitted([*talk, said(), user()])

    assert all(a is b for a, b in zip(first, again)) and all(a is b for a, b in zip(texts, same))


def test_what_is_made_of_a_conversation_that_does_not_fit_goes_with_it() -> None:
    talk: list[LLMMessage] = [user(), calls("x" * 50), results("x" * 50), results("y")]
    made = [ref(each) for each in normalise(talk, OPENAI)[1:]]

    del talk
    gc.collect()

    assert [each() for each in made] == [None] * 4


def test_a_result_that_is_replaced_is_seen_in_what_was_made_anew() -> None:
    talk = [user(), calls("x" * 50), results("x" * 50, text="one")]
    normalise(talk, OPENAI)
    talk[2].content = results("x" * 50, text="two").content

    assert "two" in str(shape(normalise(talk, OPENAI)))


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


def test_an_empty_answer_stays_where_it_holds_what_the_provider_wants_back() -> None:
    paused = said("", kept={"anthropic": [{"type": "server_tool_use"}]})
    talk = [user(), paused, user(), said(" ", kept={"gemini": [{}]}), user()]

    assert shape(normalise(talk, ANTHROPIC)) == ["U:hello", "A:", "U:hello", "U:hello"]
    assert shape(normalise(talk, MISTRAL)) == ["U:hello", "U:hello", "U:hello"]


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
def test_what_is_remembered_of_messages_tells_whether_they_fit(talk: list[LLMMessage], dialect: Dialect) -> None:
    fitted, letters, texts = Conversations(dialect, repr).fitted(talk)
    wanted = normalise(talk, dialect)

    assert list(fitted) == list(wanted) and (fitted is talk) == (wanted is talk)
    assert len(letters) == len(texts) == len(fitted) and letters == letters.lower()


@given(st.lists(a_message, max_size=9), st.sampled_from(EVERY))
def test_no_result_of_a_tool_is_ever_lost(talk: list[LLMMessage], dialect: Dialect) -> None:
    def contents(messages: Any) -> list[str]:
        shown = [m.content for m in messages if isinstance(m, FunctionExecutionResultMessage)]
        return sorted(r.content for content in shown for r in content if not r.content.startswith("This call has no"))

    assert contents(normalise(talk, dialect)) == contents(talk)


# --- names of tools


def ask_with(*names: str, choice: Any = "auto") -> Ask:
    tools: list[Any] = [{"name": name} for name in names]
    return Ask([user()], tools, choice, None, {}, False)


def test_names_of_tools_that_fit_are_sent_as_they_are() -> None:
    ask = ask_with("a_b", "c")

    assert with_fitting_names(ask, OPENAI) == (ask, {}) and with_fitting_names(ask, OPENAI)[0] is ask


def test_names_of_tools_that_are_made_to_fit_differ_from_all_others() -> None:
    ask, names = with_fitting_names(ask_with("a.b", "a_b", "a/b", "b" * 70, "b" * 71), OPENAI)

    sent = [tool["name"] for tool in ask.tools]
    assert sent == ["a_b_2", "a_b", "a_b_3", "b" * 64, f"{'b' * 60}_2"]
    assert names == {"a_b_2": "a.b", "a_b_3": "a/b", "b" * 64: "b" * 70, f"{'b' * 60}_2": "b" * 71}


def test_the_tool_to_call_is_named_as_it_is_sent() -> None:
    ask, _ = with_fitting_names(ask_with("a.b", choice={"name": "a.b"}), OPENAI)

    assert ask.choice == {"name": "a_b"}


def test_past_calls_of_a_tool_are_named_as_it_is_sent() -> None:
    talk = [user(), calls("1", name="a.b"), results("1", name="a.b"), calls("2", name="a_b"), results("2", name="a_b")]

    ask, names = with_fitting_names(replace(ask_with("a_b", "a.b"), messages=talk), OPENAI)

    fitted = normalise(ask.messages, OPENAI)
    sent = [part.name for message in fitted[1:] for part in message.content]  # type: ignore[union-attr]
    assert sent == ["a_b_2", "a_b_2", "a_b", "a_b"] and names == {"a_b_2": "a.b"}
    assert ask.messages[3] is talk[3]


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
        (OPENAI, "gpt-5.1", {"temperature": 0, "max_completion_tokens": 5, "seed": 1}),
        (OPENAI, "gpt-5.6-luna", {"max_completion_tokens": 5, "seed": 1}),
        (RESPONSES, "gpt-5.1", {"temperature": 0, "max_output_tokens": 5, "seed": 1}),
        (RESPONSES, "o3", {"max_output_tokens": 5, "seed": 1}),
        (MISTRAL, "mistral-small", {"temperature": 0, "max_tokens": 5, "random_seed": 1}),
        (DIALECTS["cerebras"], "gpt-oss", {"temperature": 0, "max_completion_tokens": 5, "seed": 1}),
    ],
)
def test_fields_get_the_names_that_a_model_knows(dialect: Dialect, model: str, fitted: dict[str, Any]) -> None:
    assert dialect.fitted_fields(model, {"temperature": 0, "max_tokens": 5, "seed": 1}) == fitted


@pytest.mark.parametrize("told", [{"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}])
def test_a_model_that_is_told_to_reason_is_not_told_how_to_sample(told: dict[str, Any]) -> None:
    assert OPENAI.fitted_fields("gpt-5.2", {"temperature": 0, **told}) == told


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
