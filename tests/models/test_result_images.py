"""Pictures that a tool gives reach the model, in the words of each wire format."""

from __future__ import annotations

import base64

import pytest

from tinygen import (
    AssistantAgent,
    AssistantMessage,
    ConfigError,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    FunctionTool,
    Image,
    ReplayChatCompletionClient,
    UserMessage,
)
from tinygen.models import ModelInfo, chat, claude, dialects, generate, ollama, responses
from tinygen.models.asks import checked_ask
from tinygen.models.conversations import normalise
from tinygen.models.tokens import message_tokens, picture_tokens

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n picture").decode()
PICTURE = Image.from_base64(PNG)
RESULT = FunctionExecutionResult(content="a map:\n[Image]", name="draw", call_id="c1", is_error=False, images=[PICTURE])
MESSAGE = FunctionExecutionResultMessage(content=[RESULT])
URI = f"data:image/png;base64,{PNG}"


@pytest.mark.parametrize(
    ("encode", "picture"),
    [
        (chat.encode_message, f'{{"type":"image_url","image_url":{{"url":"{URI}"'),
        (responses.encode_message, f'{{"type":"input_image","image_url":"{URI}"'),
        (claude.encode_message, f'{{"type":"base64","media_type":"image/png","data":"{PNG}"}}'),
        (generate.encode_message, f'{{"inlineData":{{"mimeType":"image/png","data":"{PNG}"}}}}'),
        (ollama.encode_message, f'"images":["{PNG}"]'),
    ],
    ids=["chat", "responses", "anthropic", "gemini", "ollama"],
)
def test_a_picture_in_a_result_is_sent(encode: object, picture: str) -> None:
    text = encode(MESSAGE)  # type: ignore[operator]

    assert picture in text
    assert "a map:\\n[Image]" in text


def test_a_chat_server_that_wants_the_assistant_after_results_gets_it_before_the_picture() -> None:
    text = chat.encode_message(MESSAGE, dialect=dialects.MISTRAL)

    assert text.index('"role":"tool"') < text.index('"role":"assistant"') < text.index('"role":"user"')


def test_a_picture_survives_json_and_a_result_without_one_says_nothing_of_it() -> None:
    assert FunctionExecutionResultMessage.load(MESSAGE.dump()) == MESSAGE
    assert "images" not in FunctionExecutionResult(content="x", name="f", call_id="1").dump()


@pytest.mark.parametrize("vision", [True, False])
async def test_a_model_is_sent_what_a_tool_drew_if_it_can_see(vision: bool) -> None:
    def draw() -> Image:
        """Draws."""
        return PICTURE

    info = {"vision": vision, "function_calling": True, "json_output": True, "family": "x", "structured_output": True}
    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "draw")], "Nice."], model_info=info)  # type: ignore[arg-type]
    agent = AssistantAgent("painter", model, tools=[FunctionTool(draw, "Draws.")], reflect_on_tool_use=True)

    await agent.run(task="draw")

    (result,) = model.create_calls[1].messages[-1].content
    assert result.images == ([PICTURE] if vision else None)  # type: ignore[union-attr]


def test_a_result_that_is_fitted_to_another_call_keeps_its_picture() -> None:
    call = AssistantMessage(content=[FunctionCall("other", "{}", "draw")], source="a")
    talk = [UserMessage(content="q", source="user"), call, MESSAGE]

    fitted = normalise(talk, dialects.ANTHROPIC)

    assert any(
        result.images == [PICTURE]
        for message in fitted
        if isinstance(message, FunctionExecutionResultMessage)
        for result in message.content
    )


def test_a_model_that_cannot_see_is_not_sent_a_result_with_a_picture() -> None:
    info: ModelInfo = {
        "vision": False, "function_calling": True, "json_output": True, "family": "x", "structured_output": True
    }  # fmt: skip

    with pytest.raises(ConfigError, match="the result of a tool holds one"):
        checked_ask([MESSAGE], (), "auto", None, {}, stream=False, info=info)


def test_the_tokens_of_a_picture_in_a_result_are_counted() -> None:
    without = FunctionExecutionResultMessage(content=[RESULT.model_copy(update={"images": None})])

    assert message_tokens(MESSAGE) == message_tokens(without) + picture_tokens(PICTURE)
