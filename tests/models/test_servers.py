"""Servers by name: their addresses and keys, and what each of them accepts of OpenAI's chat protocol."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loopback import Loopback, json_reply, sse_reply
from shared_data import needs_shared, shared
from tinygen import create_client
from tinygen.errors import AuthenticationError, ConfigError
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)
from tinygen.models import COMPATIBLE, NATIVE
from tinygen.models.chat import REASONS, ChatDecoder, decode_response, encode_message
from tinygen.models.dialects import DIALECTS
from tinygen.models.openai import AzureOpenAIChatCompletionClient, OpenAIChatCompletionClient
from tinygen.models.sse import EventDecoder

WIRE = shared("wire") or Path()
QUESTION = [UserMessage(content="hello", source="ann")]
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
STRICT: dict[str, Any] = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
LOCAL = {name for name, (url, _, _) in COMPATIBLE.items() if "localhost" in url}


@dataclass
class Reading:
    celsius: int


def calls(identity: str, arguments: str = "{}", thought: str | None = None, kept: Any = None) -> list[Any]:
    """A call and its result."""
    call, result = FunctionCall(identity, arguments, "weather"), FunctionExecutionResult
    return [
        AssistantMessage(content=[call], thought=thought, source="bot", provider_data=kept),
        FunctionExecutionResultMessage(content=[result(content="sun", name="weather", call_id=identity)]),
    ]


async def sent_to(server: str, messages: Any = QUESTION, model: str = "m", options: Any = None, **call: Any) -> Any:
    """The body of the request that the client of a server makes for this call."""
    stream = call.pop("stream", False)
    async with Loopback([sse_reply({"choices": [{"delta": {}, "finish_reason": "stop"}]})] if stream else []) as near:
        near.replies = near.replies or [json_reply(ANSWER)]
        given = {"base_url": near.url, "api_key": "k" * 9, **(options or {})}
        async with OpenAIChatCompletionClient(model=model, server=server, **given) as client:
            if stream:
                assert [each async for each in client.create_stream(messages, **call)]
            else:
                await client.create(messages, **call)
    return near.requests[0].json


def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name for _, names, _ in COMPATIBLE.values() for name in names.split()}
    for name in [*names, "TINYGEN_MODEL", "OPENAI_BASE_URL", *(f"{each.upper()}_BASE_URL" for each in COMPATIBLE)]:
        monkeypatch.delenv(name, raising=False)


# --- names, addresses, keys


def test_every_server_has_an_address_a_key_and_rules_that_exist() -> None:
    for url, names, dialect in COMPATIBLE.values():
        assert url.startswith("http") and not url.endswith("/")
        assert names.replace("_", "").replace(" ", "").isupper()
        assert dialect in DIALECTS


@pytest.mark.parametrize("name", sorted(COMPATIBLE))
def test_a_server_is_reached_by_its_name_with_the_key_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_keys(monkeypatch)
    url, names, dialect = COMPATIBLE[name]
    for variable in names.split():
        monkeypatch.setenv(variable, f"{variable.lower()}-value")

    client: Any = create_client(f"{name}:some/model:latest")

    assert client._url == f"{url}/chat/completions"
    assert client._model == "some/model:latest"
    assert client._headers["authorization"] == f"Bearer {names.split()[0].lower()}-value"
    assert client._dialect is DIALECTS[dialect]


@pytest.mark.parametrize("name", sorted(set(COMPATIBLE) - LOCAL))
def test_a_missing_key_is_said_in_three_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_keys(monkeypatch)
    if name != "openai":
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")

    with pytest.raises(AuthenticationError) as failed:
        create_client(f"{name}:m")

    what, why, remedy = str(failed.value).split("\n")
    assert "no API key for model 'm'" in what
    assert all(variable in why for variable in COMPATIBLE[name][1].split())
    assert "api_key=" in remedy


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_a_server_of_this_machine_needs_no_key_and_may_be_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_keys(monkeypatch)
    monkeypatch.setenv(f"{name.upper()}_BASE_URL", "http://gpu-box:1/v1")

    client: Any = create_client(f"{name}:m")

    assert client._url == "http://gpu-box:1/v1/chat/completions"
    assert "authorization" not in client._headers


def test_a_server_with_a_dash_in_its_name_is_moved_by_a_variable_that_a_shell_can_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GEMINI_CHAT_BASE_URL", "http://near:1/v1")

    client: Any = create_client("gemini-chat:m")

    assert client._url == "http://near:1/v1/chat/completions"


def test_a_named_server_elsewhere_is_never_sent_the_key_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    without_keys(monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")

    with pytest.raises(AuthenticationError, match="LITELLM_API_KEY"):
        create_client("litellm:m", base_url="https://models.example/v1")


def test_the_rules_of_a_server_are_known_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    client = OpenAIChatCompletionClient(model="m", api_key="k", base_url="https://api.mistral.ai/v1/")

    assert client._dialect.name == "mistral"
    assert OpenAIChatCompletionClient(model="m", base_url="http://localhost:8000/v1")._dialect.name == "chat"


def test_an_unknown_provider_is_told_which_there_are() -> None:
    with pytest.raises(ConfigError, match="unknown provider 'grog'; did you mean 'groq'") as failed:
        create_client("grog:m")

    assert all(name in str(failed.value) for name in (*COMPATIBLE, *NATIVE))
    with pytest.raises(ConfigError, match="no server 'grog' is known; did you mean 'groq'"):
        OpenAIChatCompletionClient(model="m", server="grog")


@pytest.mark.parametrize("name", ["foo", "mine", "antropic"])
def test_the_providers_are_listed_once_and_only_a_near_one_is_proposed(name: str) -> None:
    with pytest.raises(ConfigError) as failed:
        create_client(f"{name}:m")

    words = str(failed.value)
    assert words.count("'groq'") == 1 and "?;" not in words
    assert ("did you mean" in words) == (name == "antropic")


@pytest.mark.parametrize("name", ["gpt-4o", ":m", "openai:", ""])
def test_a_name_that_says_too_little_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="'provider:model'"):
        create_client(name)


@pytest.mark.parametrize("said", [None, "", "gpt-4o"])
def test_a_name_that_was_not_given_leads_to_the_variable_that_stands_for_it(
    said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINYGEN_MODEL", raising=False)
    if said is not None:
        monkeypatch.setenv("TINYGEN_MODEL", said)

    with pytest.raises(ConfigError, match=f"not '{said or ''}'; .*TINYGEN_MODEL"):
        create_client()


def test_the_environment_says_which_model_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    without_keys(monkeypatch)
    with pytest.raises(ConfigError, match="'provider:model'"):
        create_client()
    monkeypatch.setenv("TINYGEN_MODEL", "vllm:qwen3")

    client: Any = create_client(temperature=0)

    assert (client._model, client._dialect.name, client._parameters["temperature"]) == ("qwen3", "local", 0)


@pytest.mark.parametrize("name", sorted(set(NATIVE) - {"bedrock", "vertex"}))
def test_a_provider_with_a_client_of_its_own_gets_that_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")

    assert type(create_client(f"{name}:m", api_key="k" * 9)).__name__ == NATIVE[name][1]


# --- Azure


@pytest.mark.parametrize(
    ("options", "url", "model"),
    [
        ({"api_version": "2024-06-01"}, "/openai/deployments/mine/chat/completions?api-version=2024-06-01", "gpt-4o"),
        ({}, "/openai/v1/chat/completions", "mine"),
        ({"api_version": "v1"}, "/openai/v1/chat/completions", "mine"),
        ({"api_version": "preview"}, "/openai/v1/chat/completions?api-version=preview", "mine"),
        ({"azure_endpoint": "https://x.test/openai/v1/"}, "/openai/v1/chat/completions", "mine"),
        (
            {"azure_endpoint": "https://x.test/openai/deployments/other", "api_version": "2024-06-01"},
            "/openai/deployments/other/chat/completions?api-version=2024-06-01",
            "gpt-4o",
        ),
    ],
)
def test_azure_has_an_address_for_every_way_to_name_a_model(
    options: dict[str, Any], url: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    given = {"azure_endpoint": "https://x.test", "azure_deployment": "mine", "api_key": "k", **options}

    client = AzureOpenAIChatCompletionClient(model="gpt-4o", **given)

    assert client._url == f"https://x.test{url}"
    assert client._parameters["model"] == model


async def test_a_deployment_of_a_reasoning_model_is_known_by_the_model_not_by_its_name() -> None:
    async with Loopback([json_reply(ANSWER)]) as near:
        given = {"azure_endpoint": near.url.removesuffix("/v1"), "azure_deployment": "mine", "api_key": "k"}
        async with AzureOpenAIChatCompletionClient(model="o3", max_tokens=5, temperature=0, **given) as client:
            await client.create(QUESTION)

    sent = near.requests[0].json
    assert (sent["model"], sent["max_completion_tokens"], "temperature" in sent) == ("mine", 5, False)


@pytest.mark.parametrize("name", ["autogen_ext.auth.azure.AzureTokenProvider", "AzureTokenProvider"])
def test_a_token_provider_given_by_its_name_is_refused_with_what_to_pass(name: str) -> None:
    given: dict[str, Any] = {"model": "gpt-4o", "azure_endpoint": "https://x.test", "azure_ad_token_provider": name}

    with pytest.raises(ConfigError, match="get_bearer_token_provider"):
        AzureOpenAIChatCompletionClient(**given)
    with pytest.raises(ConfigError, match="get_bearer_token_provider"):
        AzureOpenAIChatCompletionClient.load_component(
            {"provider": "autogen_ext.models.openai.AzureOpenAIChatCompletionClient", "config": given}
        )


def test_autogens_document_of_a_token_provider_is_refused_with_what_to_pass() -> None:
    tokens = {"provider": "autogen_ext.auth.azure.AzureTokenProvider", "config": {"scopes": ["x"]}}
    config = {"model": "m", "azure_endpoint": "https://x.test", "azure_ad_token_provider": tokens}

    with pytest.raises(ConfigError, match="get_bearer_token_provider"):
        AzureOpenAIChatCompletionClient.load_component(
            {"provider": "autogen_ext.models.openai.AzureOpenAIChatCompletionClient", "config": config}
        )


# --- what servers accept


async def test_mistral_gets_a_request_as_it_wants_it() -> None:
    talk = [SystemMessage(content="a"), *QUESTION, *calls("call_123456789012", "{oops", "hm"), *QUESTION]
    talk.append(SystemMessage(content="b"))

    sent = await sent_to("mistral", talk, options={"seed": 1, "max_completion_tokens": 2}, tools=[STRICT], stream=True)

    identity = sent["messages"][2]["tool_calls"][0]["id"]
    assert len(identity) == 9 and identity.isalnum()
    function = {"name": "weather", "arguments": '{"invalid_json":"{oops"}'}
    assert sent["messages"] == [
        {"role": "system", "content": "a\nb"},
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": identity, "type": "function", "function": function}],
        },
        {"role": "tool", "content": "sun", "tool_call_id": identity},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "hello"},
    ]
    assert sent.keys() == {"model", "random_seed", "max_tokens", "tools", "stream", "messages"}


@pytest.mark.parametrize("server", sorted(COMPATIBLE))
async def test_who_speaks_is_said_only_where_the_field_is_known(server: str) -> None:
    named = DIALECTS[COMPATIBLE[server][2]].names

    assert ("name" in (await sent_to(server))["messages"][0]) is named
    for wanted in (True, False):
        sent = await sent_to(server, options={"include_name_in_message": wanted})
        assert ("name" in sent["messages"][0]) is wanted


async def test_a_server_that_knows_no_schemas_is_told_the_schema_in_words() -> None:
    sent = await sent_to("deepseek", json_output=Reading, tools=[STRICT])

    assert sent["response_format"] == {"type": "json_object"}
    assert sent["messages"][0]["role"] == "system" and '"celsius"' in sent["messages"][0]["content"]
    assert "strict" not in sent["tools"][0]["function"]


async def test_a_schema_is_closed_where_only_closed_ones_are_known() -> None:
    form = (await sent_to("groq", json_output=Reading))["response_format"]["json_schema"]

    assert form["schema"]["additionalProperties"] is False


@pytest.mark.parametrize(("server", "asked"), [("openai", True), ("groq", True), ("perplexity", False)])
async def test_usage_of_a_stream_is_asked_for_where_that_is_understood(server: str, asked: bool) -> None:
    assert ("stream_options" in await sent_to(server, stream=True)) is asked


async def test_a_reasoning_model_of_openai_gets_no_field_it_refuses() -> None:
    options = {"temperature": 0, "max_tokens": 5, "top_p": 1, "seed": 3}

    sent = await sent_to("openai", model="o3-mini", options=options)

    assert sent.keys() == {"model", "max_completion_tokens", "seed", "messages"}


# --- thoughts that must come back


def as_message(result: CreateResult) -> AssistantMessage:
    return AssistantMessage(
        content=result.content, thought=result.thought, source="bot", provider_data=result.provider_data
    )


def body(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}


async def test_deepseek_gets_the_thinking_behind_its_calls_back_and_no_other_server_does() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    answer = decode_response(body(content="I look.", reasoning_content="hm", tool_calls=[call]), "reasoning_content")
    talk = [*QUESTION, as_message(answer.result(REASONS)), calls("c1")[1]]

    sent = (await sent_to("deepseek", talk))["messages"][1]
    assert (sent["reasoning_content"], sent["content"]) == ("hm", "I look.")
    assert "reasoning_content" not in (await sent_to("groq", talk))["messages"][1]


@needs_shared("wire")
async def test_openrouter_gets_its_signed_thoughts_back_as_they_came() -> None:
    exchange = json.loads((WIRE / "openrouter-chat-thinking-01.json").read_text(encoding="utf-8"))
    details = exchange["response"]["json"]["choices"][0]["message"]["reasoning_details"]
    result = decode_response(exchange["response"]["json"], "reasoning_details").result(REASONS)

    sent = await sent_to("openrouter", [*QUESTION, as_message(result), *QUESTION])

    assert sent["messages"][1]["reasoning_details"] == details


@needs_shared("wire")
def test_thoughts_that_come_in_pieces_are_put_together_for_openrouter() -> None:
    exchange = json.loads((WIRE / "openrouter-chat-stream-parallel-tool-calls-01.json").read_text(encoding="utf-8"))
    framing, decoder = EventDecoder(), ChatDecoder("reasoning_details")
    for event, data in [*framing.feed(exchange["response"]["sse"].encode()), *framing.finish()]:
        decoder.feed(event, data)
    decoder.end()

    kept = decoder.whole().kept

    text = {"type": "reasoning.text", "text": exchange["expect"]["thinking"], "format": "unknown", "index": 0}
    assert (kept or {})["chat"]["reasoning_details"] == [text]


def test_thoughts_whose_beginning_is_no_text_are_kept_as_they_are() -> None:
    decoder = ChatDecoder("reasoning_details")
    for text in (5, "a", ["b"], "c"):
        detail = {"type": "reasoning.text", "text": text, "index": 0}
        decoder.feed("", json.dumps({"choices": [{"index": 0, "delta": {"reasoning_details": [detail]}}]}))

    assert decoder.whole().kept == {
        "chat": {"reasoning_details": [{"type": "reasoning.text", "text": "c", "index": 0}]}
    }


@pytest.mark.parametrize("places", [range(20_000), [0] * 20_000, [None] * 20_000], ids=["own", "same", "none"])
def test_any_number_of_calls_is_read_in_time(places: Any) -> None:
    decoder, start = ChatDecoder(), time.process_time()
    for n, place in enumerate(places):
        call = {"index": place, "id": f"c{n}", "function": {"name": "f", "arguments": "{}"}}
        decoder.take({"delta": {"tool_calls": [call]}})

    assert len(decoder.whole().calls) == 20_000
    assert time.process_time() - start < 5


def test_white_space_is_not_held_back_for_ever() -> None:
    decoder = ChatDecoder()

    said = [decoder.take({"delta": {"content": "\n"}}) for _ in range(100)]

    assert len("".join(said)) == 100


def test_what_came_with_calls_goes_back_only_if_all_of_them_are_there() -> None:
    made = [FunctionCall(id=str(n), name="f", arguments="{}") for n in range(2)]
    kept = {"chat": {"calls": [{"extra_content": n} for n in range(2)]}}
    talk = [AssistantMessage(content=made[at:], source="bot", provider_data=kept) for at in range(2)]

    both, one = (json.loads(encode_message(message, dialect=DIALECTS["gemini-chat"])) for message in talk)

    assert [call.get("extra_content") for call in (*both["tool_calls"], *one["tool_calls"])] == [0, 1, None]


def test_pieces_of_thoughts_are_joined_only_where_they_belong_together() -> None:
    decoder = ChatDecoder("reasoning_details")
    pieces: list[Any] = [
        {"type": "reasoning.summary", "summary": "a", "index": 0},
        {"type": "reasoning.summary", "summary": "b", "index": 0},
        {"type": "reasoning.summary", "signature": "s", "summary": None, "index": 0},
        {"type": "reasoning.encrypted", "data": "x", "index": 0},
        {"type": "reasoning.encrypted", "data": "y", "index": 0},
        5,
    ]
    for piece in pieces:
        decoder.feed("", json.dumps({"choices": [{"delta": {"reasoning_details": [piece]}}]}))
    decoder.feed("", "[DONE]")

    assert (decoder.whole().kept or {})["chat"]["reasoning_details"] == [
        {"type": "reasoning.summary", "summary": "ab", "index": 0, "signature": "s"},
        *pieces[3:],
    ]


async def test_gemini_gets_the_signature_of_each_call_back_through_openais_protocol() -> None:
    google = {"google": {"thought_signature": "sig"}}
    call = {"id": "", "type": "function", "function": {"name": "weather", "arguments": "{}"}, "extra_content": google}
    result = decode_response(body(tool_calls=[call]), "extra_content").result(REASONS)
    made: Any = result.content
    talk = [*QUESTION, as_message(result), calls(made[0].id)[1]]

    sent = await sent_to("gemini-chat", talk)

    assert sent["messages"][1]["tool_calls"][0]["extra_content"] == google
    assert "extra_content" not in (await sent_to("openai", talk))["messages"][1]["tool_calls"][0]


@pytest.mark.parametrize("kept", [{"chat": 5}, {"chat": {"calls": 5, "reasoning_content": None}}, {"responses": []}])
async def test_what_was_kept_by_another_or_is_damaged_is_left_alone(kept: Any) -> None:
    talk = [*QUESTION, *calls("c1", kept=kept)]

    sent = await sent_to("deepseek", talk)

    assert sent["messages"][1].keys() == {"role", "content", "tool_calls", "name"}
