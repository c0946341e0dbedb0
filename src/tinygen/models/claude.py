"""Anthropic's Messages protocol: requests as bytes, answers from bodies and events. No I/O.

Theory of operation. A message of ours becomes content blocks, and neighbours of one role become one message of theirs.
What a model thought is signed and must come back as it was: an answer keeps those blocks in `provider_data`, and its
message is sent with them, unless the request says that the model shall not think. Which fields a request may have
depends on the model, and follows from the version in its name.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .. import codec
from ..errors import ModelError, ProtocolError
from ..messages import (
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResultMessage,
    Image,
    UserMessage,
)
from .asks import body_of, checked, json_instruction, merged, parameters_of
from .dialects import ANTHROPIC
from .http import Again
from .schemas import fitted, strict_schema
from .wire import (
    Answer,
    StreamDecoder,
    call_arguments,
    dumps,
    expect,
    keepable,
    number,
    raise_error_in,
    read_call,
    short,
    written,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..messages import LLMMessage
    from . import ToolSchema
    from .asks import Ask
    from .conversations import Conversations
    from .wire import Reason

REASONS: Mapping[str, Reason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "function_calls",
    "refusal": "content_filter",
}
BINDING = "thinking-binding-controls-2026-08-01"  # the beta in which `bound` models are told what to do with thoughts
ANSWER = "structured_answer"  # the tool by which models answer that cannot be held to a schema otherwise

_CUT = ("max_tokens", "model_context_window_exceeded", "refusal")  # a call may have been broken off
_PASSING = ("overloaded_error", "api_error", "rate_limit_error", "timeout_error")
_SAMPLING = ("temperature", "top_p", "top_k")
_THOUGHTS = ("thinking", "redacted_thinking")
_DROP_BLOCKS = {"prefix_mismatch_behavior": "drop_block"}
_GO_ON = b'{"role":"user","content":[{"type":"text","text":"Go on."}]}'
_OUTPUT = replace(ANTHROPIC.output, references=False)


# --- what a model accepts

# the versions of Claude since which a model ...
_STRUCTURED = (4, 5)  # can be held to a schema
_UNPREFILLED = (4, 6)  # does not go on with what it is told it said last
_UNSAMPLED = (4, 7)  # has no temperature, and no budget of thinking
_THINKING = (5, 0)  # thinks without being asked to
BOUND = (5, 1)  # takes its thoughts back only where nothing before them has changed


def version_of(model: str) -> tuple[int, int]:
    """The version in the name of a model; (0, 0) if there is none, and only what all accept may be expected."""
    name = re.search(r"claude-(?:[a-z]+-)*(\d+)(?:[-.](\d{1,2})(?!\d))?", model)
    return (int(name[1]), int(name[2] or 0)) if name else (0, 0)


# --- requests


def encode_message(message: LLMMessage, thoughts: bool = True) -> str:
    """A message as JSON text; "" if there is nothing to send of it.

    Args:
        thoughts: send what the model thought, if it came from here.
    """
    blocks = _blocks(message, thoughts)
    role = "assistant" if isinstance(message, AssistantMessage) else "user"
    return dumps({"role": role, "content": blocks}) if blocks else ""


def _blocks(message: LLMMessage, thoughts: bool) -> list[dict[str, Any]]:
    content = message.content
    if isinstance(message, FunctionExecutionResultMessage):
        return [_result(result) for result in checked(content, list, message)]
    if isinstance(message, AssistantMessage):
        return _said(message, thoughts)
    parts = [content] if isinstance(content, str) else checked(content, list, message)
    return [_text(part) if isinstance(part, str) else _picture(checked(part, Image, message)) for part in parts]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _picture(image: Image) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": image.to_base64()}}


def _result(result: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": result.call_id}
    if result.content or result.is_error:  # an error must say something
        block["content"] = result.content or "error"
    if result.images:
        text = [_text(result.content)] if result.content.strip() else []
        block["content"] = text + [_picture(image) for image in result.images]
    return {**block, "is_error": True} if result.is_error else block


def _said(message: AssistantMessage, thoughts: bool) -> list[dict[str, Any]]:
    """What the model said, behind what it wants back unread."""
    kept = _kept(message, thoughts)
    before = "".join(block["text"] for block in kept if block.get("type") == "text")
    if isinstance(message.content, str):
        if not message.content.startswith(before) and message.content != before.rstrip():  # somebody changed it
            kept, before = [block for block in kept if block.get("type") != "text"], ""
        text = message.content[len(before) :]
        return [*kept, _text(text)] if text.strip() else kept
    if not (message.provider_data or {}).get("anthropic") and (message.thought or "").strip():
        kept = [_text(message.thought or "")]
    calls = checked(message.content, list, message)
    return kept + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call_arguments(call)} for call in calls
    ]


def _kept(message: AssistantMessage, thoughts: bool) -> list[dict[str, Any]]:
    """The blocks that came with the message, if it came from here."""
    kept = (message.provider_data or {}).get("anthropic")
    if not isinstance(kept, list):
        return []
    return [
        block
        for block in kept
        if isinstance(block, dict)
        if (thoughts or block.get("type") not in _THOUGHTS) and (block.get("type") != "text" or block.get("text"))
    ]


def encode_request(ask: Ask, model: str, parameters: Mapping[str, Any], encoded: Mapping[bool, Conversations]) -> bytes:
    """The body of a request.

    Args:
        model: its name, from which follows what it accepts.
        parameters: the client's own fields.
        encoded: what encodes conversations, by whether with the thoughts in them.
    """
    version = version_of(model)
    given = {**ANTHROPIC.fitted_fields(model, parameters), **ANTHROPIC.fitted_fields(model, ask.extra)}
    fields = {name: value for name, value in given.items() if value is not None}
    if isinstance(stop := fields.get("stop_sequences"), str):
        fields["stop_sequences"] = [stop]
    fields["tools"] = [*(parameters.get("tools") or ()), *(ask.extra.get("tools") or ())]
    answer, orders = _hold_to_form(fields, ask, version)
    _offer_tools(fields, ask, version, answer)
    unsaid = "thinking" not in fields and version == (0, 0)
    keeps = unsaid or _thinks(fields, version)
    talk, letters, texts = encoded[keeps].fitted(ask.messages)
    thinks = _settle_thinking(fields, version, talk)
    if keeps and not (thinks or unsaid):
        talk, letters, texts = encoded[False].fitted(ask.messages)
    if letters[0] == "s":
        orders.insert(0, talk[0].content)  # type: ignore[arg-type]
        letters, texts = letters[1:], texts[1:]
    if letters[-1] == "a" and not _is_paused(talk[-1]):  # type: ignore[arg-type]
        if version >= _UNPREFILLED or thinks or "output_config" in fields:
            letters, texts = letters + "u", [*texts, _GO_ON]
    _instruct(fields, orders)
    if ask.stream:
        fields["stream"] = True
    return body_of(fields, "messages", merged(letters.translate(_ROLES), texts, _HEADS))


_ROLES = str.maketrans("cr", "au")  # letters of messages with calls, and with results
# how long the beginning of a message is, of the assistant and of the user
_HEADS = {"a": len('{"role":"assistant","content":['), "u": len('{"role":"user","content":[')}


def _instruct(fields: dict[str, Any], orders: list[str]) -> None:
    """Set the system message: what was given as a field, then the orders."""
    given = fields.pop("system", None)
    text = "\n".join(order for order in orders if order.strip())
    if isinstance(given, list):
        fields["system"] = [*given, *([_text(text)] if text else [])]
    elif whole := "\n".join(part for part in (given, text) if part):
        fields["system"] = whole


def _tool(schema: ToolSchema, version: tuple[int, int]) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": schema["name"]}
    if description := schema.get("description"):
        tool["description"] = description
    tool["input_schema"] = parameters_of(schema)
    if schema.get("strict") and version >= _STRUCTURED:
        closed, fits = strict_schema(fitted(tool["input_schema"], _OUTPUT))
        if fits:
            tool.update(input_schema=closed, strict=True)
    return tool


def _hold_to_form(
    fields: dict[str, Any], ask: Ask, version: tuple[int, int]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Hold the model to JSON, or to the schema of a type; returns the tool to answer by, and what to say in words."""
    if not ask.json_output:
        return None, []
    if isinstance(ask.json_output, bool):
        return None, [json_instruction(ask.json_output)]
    schema = codec.schema(ask.json_output)
    closed, fits = strict_schema(fitted(schema, _OUTPUT))
    if fits and version >= _STRUCTURED:
        form = {"type": "json_schema", "schema": closed}
        fields["output_config"] = {**fields.get("output_config", {}), "format": form}
        return None, []
    if schema.get("type") == "object":
        return {"name": ANSWER, "description": "Gives your answer.", "input_schema": schema}, []
    return None, [json_instruction(ask.json_output)]


def _offer_tools(fields: dict[str, Any], ask: Ask, version: tuple[int, int], answer: dict[str, Any] | None) -> None:
    """Add the tools of the call, and the one to answer by."""
    fields["tools"] += [_tool(tool, version) for tool in ask.tools] + ([answer] if answer else [])
    choice = fields.pop("tool_choice", None)
    parallel = fields.pop("parallel_tool_calls", None)
    if not fields["tools"]:
        del fields["tools"]
        return
    if answer:
        choice = {"type": "any"} if ask.tools else {"type": "tool", "name": ANSWER}
    elif isinstance(ask.choice, dict):
        choice = {"type": "tool", "name": ask.choice["name"]}
    elif ask.choice != "auto" or isinstance(choice, str):
        word = choice if ask.choice == "auto" else ask.choice
        choice = {"type": "any" if word == "required" else word}
    if parallel is False and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice:
        fields["tool_choice"] = choice


def _settle_thinking(fields: dict[str, Any], version: tuple[int, int], talk: Sequence[LLMMessage]) -> bool:
    """Fit the fields to each other that have to do with thinking; returns whether the model thinks."""
    thinking = fields.get("thinking", {})
    if thinking.get("type") == "enabled":
        limit, budget = fields.get("max_tokens"), thinking.get("budget_tokens")
        if version >= _UNSAMPLED:
            thinking = {"type": "adaptive", "display": "summarized"}
        elif _lacks_thought(talk):  # which is refused, so that this answer comes without
            thinking = {"type": "disabled"}
        elif isinstance(limit, int) and isinstance(budget, int) and limit <= budget:
            fields["max_tokens"] = limit + budget
    if version >= BOUND and thinking.get("type", "adaptive") == "adaptive":
        # what stands before a thought changes, for example what is remembered; it is then better lost than refused
        thinking = {"type": "adaptive", "block_binding": _DROP_BLOCKS, **thinking}
    if thinking:
        fields["thinking"] = thinking
    thinks = _thinks(fields, version)
    if thinks or version >= _UNSAMPLED:
        for name in _SAMPLING:
            fields.pop(name, None)
    choice = fields.get("tool_choice", {})
    if thinks and choice.get("type") in ("any", "tool"):
        fields["tool_choice"] = {key: value for key, value in {**choice, "type": "auto"}.items() if key != "name"}
    return thinks


def _thinks(fields: Mapping[str, Any], version: tuple[int, int]) -> bool:
    thinking = fields.get("thinking")
    return thinking.get("type") != "disabled" if thinking else version >= _THINKING


def _lacks_thought(talk: Sequence[LLMMessage]) -> bool:
    """Whether the model is in the midst of a turn that it began without a thought, or whose thought is lost."""
    at = len(talk)
    while at and isinstance(talk[at - 1], UserMessage):
        at -= 1
    if not at or not isinstance(talk[at - 1], FunctionExecutionResultMessage):
        return False
    while at and isinstance(talk[at - 1], (AssistantMessage, FunctionExecutionResultMessage)):
        at -= 1
    first = talk[at]
    kept = _kept(first, thoughts=True) if isinstance(first, AssistantMessage) else []
    return not kept or kept[0].get("type") not in _THOUGHTS


def _is_paused(message: AssistantMessage) -> bool:
    """Whether an answer broke off inside a tool of the provider's, to be continued."""
    kept = _kept(message, thoughts=False)
    return bool(kept) and kept[-1].get("type") == "server_tool_use"


# --- answers


def decode_response(data: dict[str, Any]) -> Answer:
    """The answer in a whole body. Raises `ProtocolError`; `ModelError` if the body reports an error."""
    if data.get("type") == "error" or data.get("error"):
        raise_error_in(data)
    content = expect(data.get("content"), list, "content")
    if content is None:
        raise ProtocolError(f"the answer holds no content, only {', '.join(map(repr, data)) or 'nothing'}")
    decoder = MessagesDecoder()
    for index, block in enumerate(content):
        decoder.begin(index, expect(block, dict, "a block of the content") or {})
    decoder.take(data, data)
    return decoder.finished()


class MessagesDecoder(StreamDecoder):
    """Puts an answer together from the events of a stream."""

    names = (*StreamDecoder.names, "content_block", "ping")

    def __init__(self) -> None:
        super().__init__()
        self._tags.settled = True  # thinking has blocks of its own
        self._blocks: list[_Block] = []
        self._open: dict[int, _Block] = {}
        self._counts: dict[str, int] = {}

    def feed(self, event: str, data: str) -> str:
        """Take one event in; returns the text it adds. Raises `ModelError`, and `Again` if another attempt may help."""
        if self.done or not data or data.isspace():
            return ""
        chunk = self._parsed(event, data)
        if chunk is None:
            return ""
        kind = chunk.get("type") or event
        if kind == "content_block_delta":
            return self._delta(chunk)
        if kind == "content_block_start":
            return self.begin(_index(chunk), expect(chunk.get("content_block"), dict, "content_block") or {})
        if kind == "message_start":
            message = expect(chunk.get("message"), dict, "message") or {}
            return self.take(message, message)
        if kind == "message_delta":
            return self.take(chunk, expect(chunk.get("delta"), dict, "delta") or {})
        if kind == "message_stop":
            self.done = self.complete = True
        elif kind == "error" or chunk.get("error"):
            self._fail(chunk)
        return ""

    def begin(self, index: int, data: dict[str, Any]) -> str:
        """A block begins, or comes as a whole; returns the text in it."""
        block = self._open[index] = _Block(data)
        self._blocks.append(block)
        kind = block.kind
        if kind == "text" and (text := expect(data.get("text"), str, "text")):
            return self._add_to(block, text)
        if kind == "thinking" and (thought := expect(data.get("thinking"), str, "thinking")):
            block.parts.append(thought)
            self._think(thought)
        elif made := data.get("input"):
            text = made if isinstance(made, str) else written(expect(made, dict, "input"), "the arguments of a tool")
            return self._add_to(block, text)
        return ""

    def take(self, holder: dict[str, Any], message: dict[str, Any]) -> str:
        """Note the usage in `holder` and the end in `message`; returns the text that a refusal adds."""
        if isinstance(usage := holder.get("usage"), dict):
            self._count(usage)
        reason = message.get("stop_reason")
        if not reason:
            return ""
        self.answer.finish = reason if isinstance(reason, str) else "unknown"
        self.complete = True
        details = message.get("stop_details")
        why = details.get("explanation") if isinstance(details, dict) and reason == "refusal" else None
        return self._say(why) if isinstance(why, str) and not self.text else ""

    def whole(self) -> Answer:
        """The answer, once the stream is over. Raises `ProtocolError` for a call without a name."""
        answer = super().whole()
        missing = "" if answer.finish in _CUT else "{}"
        answer.calls = [block.call(missing) for block in self._blocks if block.kind == "tool_use"]
        if answer.finish == "tool_use" and not answer.calls:  # it answered by a tool
            answer.finish = "end_turn"
        kept = _worth_keeping(self._blocks, bool(answer.calls))
        answer.kept = {"anthropic": kept} if kept else None
        return answer

    def _delta(self, chunk: dict[str, Any]) -> str:
        index, delta = _index(chunk), chunk.get("delta")
        if delta.__class__ is not dict:
            raise ProtocolError(f"the answer does not follow the protocol: a delta is {short(delta)}")
        kind = delta.get("type")
        if index not in self._open:
            self.begin(index, {"type": next((made for words, made in _MADE_BY if kind == words), "text")})
        block = self._open[index]
        if kind == "text_delta":
            return self._add_to(block, expect(delta.get("text"), str, "text"))
        if kind == "input_json_delta":
            return self._add_to(block, expect(delta.get("partial_json"), str, "partial_json"))
        if kind == "thinking_delta":
            if thought := expect(delta.get("thinking"), str, "thinking"):
                block.parts.append(thought)
                self._think(thought)
        elif kind == "signature_delta":
            block.data["signature"] = expect(delta.get("signature"), str, "signature")
        return ""

    def _add_to(self, block: _Block, text: str | None) -> str:
        if not text:
            return ""
        block.parts.append(text)
        return self._say(text) if block.kind in ("text", "answer") else ""

    def _count(self, usage: dict[str, Any]) -> None:
        """Note the tokens that are reported; what is said again later counts."""
        counts = self._counts
        for report in (usage, usage.get("output_tokens_details"), usage.get("cache_creation")):
            for key, value in report.items() if isinstance(report, dict) else ():
                if count := number(value):
                    counts[key] = count
        kept, cached = counts.get("cache_creation_input_tokens", 0), counts.get("cache_read_input_tokens", 0)
        used = self.answer.usage
        used["prompt_tokens"] = counts.get("input_tokens", 0) + kept + cached
        if kept:
            used["cache_write_tokens"] = kept
            used["cache_write_1h_tokens"] = min(kept, counts.get("ephemeral_1h_input_tokens", 0))
        used["completion_tokens"] = counts.get("output_tokens", 0)
        if cached:
            used["cached_tokens"] = cached
        if "thinking_tokens" in counts:
            used["reasoning_tokens"] = counts["thinking_tokens"]

    def _fail(self, chunk: dict[str, Any]) -> None:
        error = chunk.get("error")
        try:
            raise_error_in(chunk)
        except ModelError as failed:
            passing = isinstance(error, dict) and error.get("type") in _PASSING
            if passing and not self.begun:
                raise Again(failed) from None
            raise


# the blocks of deltas whose beginning was not told
_MADE_BY = (("input_json_delta", "tool_use"), ("thinking_delta", "thinking"), ("signature_delta", "thinking"))


def _index(chunk: dict[str, Any]) -> int:
    index: Any = chunk.get("index")
    if index.__class__ is not int:
        raise ProtocolError(f"the answer does not follow the protocol: the index of a block is {short(index)}")
    return index


class _Block:
    """A block of an answer under way: what it began with, and the pieces of its text, thought or input."""

    def __init__(self, data: dict[str, Any]) -> None:
        kind = data.get("type")
        self.kind: str = kind if isinstance(kind, str) else "text"
        if kind == "tool_use" and data.get("name") == ANSWER:
            self.kind = "answer"
        self.data = data
        self.parts: list[str] = []

    def call(self, missing: str) -> FunctionCall:
        return read_call(self.data.get("id"), self.data.get("name"), "".join(self.parts) or missing)

    def sent(self) -> dict[str, Any] | None:
        """The block as it is sent back; None for one that cannot be."""
        text = "".join(self.parts)
        if self.kind == "text":
            return _text(text) if text.strip() else None
        if self.kind == "thinking":
            signature = self.data.get("signature")
            return {"type": "thinking", "thinking": text, "signature": signature} if signature else None
        if self.kind.endswith("_tool_use"):
            return {**self.data, "input": call_arguments(FunctionCall(id="", arguments=text, name=""))}
        return None if self.kind in ("tool_use", "answer") else self.data


def _worth_keeping(blocks: list[_Block], calls: bool) -> list[dict[str, Any]]:
    """The blocks that have to come back as they are, and the texts between them, or before calls."""
    sent = [(block, data) for block in blocks if (data := block.sent()) is not None]
    last = max((at for at, (block, _) in enumerate(sent) if block.kind != "text"), default=-1)
    if last < 0:
        return []
    kept = [data for _, data in (sent if calls else sent[: last + 1])]
    return keepable(kept, "the blocks of the answer")  # type: ignore[no-any-return]
