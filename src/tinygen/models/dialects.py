"""What each provider accepts, as data: a provider with other rules is another row.

A `Dialect` has no code. `conversations.py` makes conversations fit one, `schemas.py` schemas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ..messages import AssistantMessage, FunctionExecutionResultMessage
from .schemas import ANY, SchemaRules, fitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from ..messages import LLMMessage
    from .asks import Ask


@dataclass(frozen=True)
class Dialect:
    """What a provider accepts.

    Of conversations:

    Args:
        name: of the provider or wire format.
        one_system: there may be one system message only, at the front; else several, anywhere.
        empty_content: texts may be empty or white space.
        names: user and assistant messages may say who speaks, as `name`.
        user_first: the first message that is not the system's must be a user's, and there must be one.
        alternates: two messages of one role may not follow each other.
        user_after_results: a user may speak directly after tool results.
        last: "any" message may end a conversation; or an assistant's may, if it ends with no white space ("stripped");
            or not even that ("user").
        parallel_calls: one message may hold several calls.
        text_beside_calls: a message with calls may hold text too.
        null_content: where a message has calls and no text, its content may be null; else it is an empty text.
        object_arguments: arguments of past calls must be JSON objects, even if the model wrote something else.
        call_id, tool_name: what ids of calls and names of tools must look like.

    Of requests:

    Args:
        stream_options: a stream may be asked for its usage.
        strict_tools: tools may be marked `strict`.
        json_schema: an answer can be held to a schema; else only to JSON.
        renames: fields of the request by the name under which they are known here.
        reasoning: beginnings of the names of models that reason, a pattern.
        reasoning_renames: likewise, for those models.
        reasoning_refuses: fields that make such a model refuse the request; they are left out.
        sampled: beginnings of the names of those models that take them unless they are told to reason, a pattern.
        thoughts: the field of an assistant's message that must come back with it as it came, None if there is none.
        signed: what must come back is signed or encrypted, and refused by every model but the one that made it.
        tools, output: schemas of a tool's arguments, and of answers.
    """

    name: str
    one_system: bool = False
    empty_content: bool = True
    names: bool = True
    user_first: bool = False
    alternates: bool = False
    user_after_results: bool = True
    last: Literal["any", "stripped", "user"] = "any"
    parallel_calls: bool = True
    text_beside_calls: bool = True
    null_content: bool = True
    object_arguments: bool = False
    call_id: str = r".+"
    tool_name: str = r"[a-zA-Z0-9_-]{1,64}"
    stream_options: bool = True
    strict_tools: bool = True
    json_schema: bool = True
    renames: Mapping[str, str] = field(default_factory=dict)
    reasoning: str | None = None
    reasoning_renames: Mapping[str, str] = field(default_factory=dict)
    reasoning_refuses: frozenset[str] = frozenset()
    sampled: str = "(?!)"
    thoughts: str | None = None
    signed: bool = False
    tools: SchemaRules = ANY
    output: SchemaRules = ANY

    def fitted_fields(self, model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of a request by the names that this model knows, without those it refuses."""
        renames, refused, model = self.renames, frozenset[str](), model.rsplit("/", 1)[-1]
        if self.reasoning is not None and re.match(self.reasoning, model):
            renames = {**renames, **self.reasoning_renames}
            effort = fields.get("reasoning_effort") or (fields.get("reasoning") or {}).get("effort") or "none"
            sampled = effort == "none" and re.match(self.sampled, model)
            refused = frozenset() if sampled else self.reasoning_refuses
        return {renames.get(name, name): value for name, value in fields.items() if name not in refused}


# --- who accepts what

_LIMIT = {"max_completion_tokens": "max_tokens"}
_CLOSED = SchemaRules(closed=True)

# what is not known better: servers that follow OpenAI, but do not know its newest fields
CHAT = Dialect("chat")
LOCAL = Dialect("local", one_system=True, object_arguments=True, null_content=False)  # templates written for one system
OPENAI = Dialect(
    "openai",
    call_id=r".{1,40}",
    reasoning=r"o\d|gpt-[5-9](?!-chat)",
    sampled=r"gpt-5\.[1-5](?!\d)",
    reasoning_renames={"max_tokens": "max_completion_tokens"},
    reasoning_refuses=frozenset(
        "temperature top_p presence_penalty frequency_penalty logprobs top_logprobs logit_bias".split()
    ),
)
RESPONSES = replace(
    OPENAI,
    name="responses",
    names=False,
    signed=True,
    call_id=r".{1,64}",
    renames={"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"},
    reasoning_renames={},
    reasoning_refuses=frozenset({"temperature", "top_p", "top_logprobs"}),
)
ANTHROPIC = Dialect(  # the system message stands apart; neighbours of one role count as one message
    "anthropic",
    one_system=True,
    empty_content=False,
    names=False,
    user_first=True,
    last="stripped",
    object_arguments=True,
    call_id=r"[a-zA-Z0-9_-]+",
    tool_name=r"[a-zA-Z0-9_-]{1,128}",
    renames={"max_completion_tokens": "max_tokens", "stop": "stop_sequences"},
    signed=True,
    output=SchemaRules(
        keywords=frozenset(
            "type properties required additionalProperties items enum const anyOf allOf $ref $defs description title "
            "default format".split()
        ),
        formats=frozenset("date-time time date duration email hostname uri ipv4 ipv6 uuid".split()),
        closed=True,
    ),
)
_GEMINI = SchemaRules(
    keywords=frozenset(
        "type format title description nullable enum maxItems minItems properties required minProperties maxProperties "
        "minLength maxLength pattern anyOf items minimum maximum".split()
    ),
    formats=frozenset("enum date-time int32 int64 float double".split()),
    references=False,
    nullable=True,
)
GEMINI = Dialect(  # the system message stands apart; an encoder makes one message of neighbours of one role
    "gemini",
    one_system=True,
    empty_content=False,
    names=False,
    user_first=True,
    last="user",
    object_arguments=True,
    tool_name=r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}",
    signed=True,
    tools=_GEMINI,
    output=_GEMINI,
)
OLLAMA = Dialect("ollama", names=False, object_arguments=True, tools=SchemaRules(references=False))
MISTRAL = Dialect(
    "mistral",
    one_system=True,
    empty_content=False,
    names=False,
    user_first=True,
    user_after_results=False,
    last="user",
    text_beside_calls=False,
    null_content=False,
    object_arguments=True,
    call_id=r"[a-zA-Z0-9]{9}",
    stream_options=False,
    renames={**_LIMIT, "seed": "random_seed"},
    output=_CLOSED,
)
DEEPSEEK = Dialect(
    "deepseek",
    strict_tools=False,
    json_schema=False,
    object_arguments=True,
    renames=_LIMIT,
    thoughts="reasoning_content",
)

DIALECTS = {
    each.name: each
    for each in (
        CHAT,
        LOCAL,
        OPENAI,
        RESPONSES,
        ANTHROPIC,
        GEMINI,
        OLLAMA,
        MISTRAL,
        DEEPSEEK,
        replace(DEEPSEEK, name="moonshot", json_schema=True),
        replace(DEEPSEEK, name="zai", names=False),
        Dialect("groq", names=False, object_arguments=True, output=_CLOSED),
        Dialect("cerebras", names=False, renames={"max_tokens": "max_completion_tokens"}, output=_CLOSED),
        Dialect("together", renames=_LIMIT),
        Dialect("fireworks", renames=_LIMIT),
        Dialect("openrouter", renames=_LIMIT, thoughts="reasoning_details", signed=True),
        Dialect(
            "xai",
            empty_content=False,
            reasoning=r"grok-(4|3-mini)(?!.*non-reasoning)",
            reasoning_refuses=frozenset({"presence_penalty", "frequency_penalty", "stop"}),
        ),
        Dialect(
            "perplexity",
            one_system=True,
            empty_content=False,
            names=False,
            user_first=True,
            alternates=True,
            user_after_results=False,
            last="user",
            stream_options=False,
            renames=_LIMIT,
        ),
        Dialect(
            "gemini-chat",  # Gemini behind OpenAI's protocol
            one_system=True,
            empty_content=False,
            names=False,
            user_first=True,
            object_arguments=True,
            strict_tools=False,
            thoughts="extra_content",
            signed=True,
        ),
        Dialect(
            "anthropic-chat",  # likewise Anthropic
            one_system=True,
            empty_content=False,
            names=False,
            user_first=True,
            last="stripped",
            object_arguments=True,
            call_id=r"[a-zA-Z0-9_-]+",
        ),
    )
}

# --- schemas and names of tools


def fitted_schema(schema: Mapping[str, Any], dialect: Dialect, output: bool = False) -> dict[str, Any]:
    """A JSON Schema as a provider of this dialect accepts it, for a tool's arguments or for an `output`."""
    return fitted(schema, dialect.output if output else dialect.tools)


@lru_cache(1024)
def fitted_name(name: str, pattern: str) -> str:
    """The name of a tool as one that fits the pattern."""
    if re.fullmatch(pattern, name):
        return name
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64]
    return name if re.fullmatch(pattern, name) else f"tool_{name}"[:64]


def with_fitting_names(ask: Ask, dialect: Dialect) -> tuple[Ask, dict[str, str]]:
    """The request with names of tools that are accepted and differ; and the tools' own names by those of them."""
    names = [tool["name"] for tool in ask.tools]
    fitting = [fitted_name(name, dialect.tool_name) for name in names]
    if fitting == names:
        return ask, {}
    given = {name: name for name, fits in zip(names, fitting) if name == fits}  # who fits keeps its name
    for name, fits in zip(names, fitting):
        if name not in given.values():
            count, base = 2, fits
            while fits in given:
                fits, count = f"{base[:60]}_{count}", count + 1
            given[fits] = name
    sent = {name: fits for fits, name in given.items()}
    tools: list[Any] = [{**tool, "name": sent[tool["name"]]} for tool in ask.tools]
    choice: Any = ask.choice
    if isinstance(choice, dict):
        choice = {**choice, "name": sent[choice["name"]]}
    # conversations give each name the form that fits; calls of a tool which could not have that are renamed here
    odd = {name: fits for name, fits in sent.items() if fits != fitted_name(name, dialect.tool_name)}
    messages = [_renamed(message, odd) for message in ask.messages] if odd else ask.messages
    asked = replace(ask, messages=messages, tools=tools, choice=choice)
    return asked, {fits: name for fits, name in given.items() if fits != name}


def _renamed(message: LLMMessage, sent: Mapping[str, str]) -> LLMMessage:
    """The message, its calls and results under the names that those tools are sent under."""
    parts: Any = message.content if isinstance(message, (AssistantMessage, FunctionExecutionResultMessage)) else None
    if not isinstance(parts, list):
        return message
    renamed = [replace(part, name=sent[part.name]) if getattr(part, "name", None) in sent else part for part in parts]
    return message if renamed == parts else message.model_copy(update={"content": renamed})
