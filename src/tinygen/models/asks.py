"""What every wire format shares of requests: what a caller wants, checked, and what bodies are made of. No I/O here."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .. import codec
from ..errors import ConfigError, did_you_mean, nearest
from ..messages import FunctionExecutionResultMessage, SystemMessage, UserMessage
from . import schema_of
from .wire import clean, dumps, short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..messages import LLMMessage
    from . import ModelInfo, Tool, ToolChoice, ToolSchema

_VERSION = "api-version"  # the one thing in an address's query that is no secret

# fields of requests that are common, or easily taken for a slip in another one; there are many more
FIELDS = frozenset(
    "cache_control cached_content chat_template_kwargs container context_management conversation do_sample "
    "dry_multiplier early_stopping enable_thinking extra_body extra_headers extra_query f16_kv format "
    "frequency_penalty generation_config grammar guided_choice guided_grammar guided_json guided_regex ignore_eos "
    "include include_reasoning instructions json_schema keep_alive labels length_penalty logit_bias logprobs "
    "low_vram main_gpu max_completion_tokens max_new_tokens max_output_tokens max_prompt_tokens max_tokens "
    "max_tool_calls mcp_servers media_resolution metadata min_p min_tokens mirostat mirostat_eta mirostat_tau "
    "modalities models num_batch num_beams num_ctx num_gpu num_keep num_predict num_retries num_thread numa options "
    "output_config parallel_tool_calls penalize_newline plugins prediction presence_penalty previous_response_id "
    "prompt prompt_cache_key prompt_cache_retention provider random_seed reasoning reasoning_effort "
    "reasoning_format repeat_last_n repeat_penalty repetition_penalty response_format response_json_schema "
    "response_logprobs response_mime_type response_modalities response_schema route safe_prompt safety_identifier "
    "safety_settings search_parameters seed service_tier skip_special_tokens speech_config stop stop_sequences "
    "stop_token_ids store stream_options system system_instruction temperature text tfs_z think thinking "
    "thinking_config tool_choice tool_config tools top_a top_k top_logprobs top_p transforms truncate "
    "truncation typical_p use_mlock use_mmap user verbosity vocab_only web_search_options".split()
)


@dataclass
class Ask:
    """What the caller wants, checked; `choice` is "auto", "required", "none" or the schema of the tool to call."""

    messages: Sequence[LLMMessage]
    tools: list[ToolSchema]
    choice: str | ToolSchema
    json_output: bool | type[Any] | None
    extra: Mapping[str, Any]
    stream: bool


@dataclass
class Request:
    """An encoded request. What the headers hold that is secret never appears in an error.

    `names` are those of tools, by the names under which they were sent, as far as they differ.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as bytes."""
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in self.headers.items()]

    def secrets(self) -> list[str]:
        """Values of the headers and of the address that must not be shown."""
        words = ("key", "auth", "token", "secret", "cookie")
        values = [value for name, value in self.headers.items() if any(word in name.lower() for word in words)]
        address, _, query = self.url.partition("?")
        if user := re.match(r"\w+://([^/]*)@", address):
            values += user[1].split(":")
        values += [value for name, _, value in (pair.partition("=") for pair in query.split("&")) if name != _VERSION]
        return [
            part for value in values for part in value.split() if len(part) >= 4 and part not in ("Bearer", "Basic")
        ]


def checked_ask(
    messages: Sequence[LLMMessage],
    tools: Sequence[Tool | ToolSchema] = (),
    tool_choice: ToolChoice = "auto",
    json_output: bool | type[Any] | None = None,
    extra_create_args: Mapping[str, Any] = {},
    *,
    stream: bool,
    info: ModelInfo,
) -> Ask:
    """Check a caller's arguments against what the model can do. Raises `ConfigError`."""
    for name, value in (("messages", messages), ("tools", tools)):
        if not isinstance(value, Sequence):
            raise ConfigError(f"{name} must be a list, not {short(value)}")
    if not isinstance(extra_create_args, Mapping):
        raise ConfigError(f"extra_create_args must be a mapping, not {short(extra_create_args)}")
    extra = for_one_answer(extra_create_args)
    schemas = [schema_of(tool) for tool in tools]
    if schemas and not info["function_calling"]:
        raise ConfigError("the model cannot call tools: model_info['function_calling'] is False; leave tools out")
    if json_output is True and not info["json_output"]:
        raise ConfigError("the model cannot be held to JSON: model_info['json_output'] is False")
    if not (json_output is None or isinstance(json_output, (bool, type)) or hasattr(json_output, "__args__")):
        raise ConfigError(f"json_output must be True, False, None or a type, not {json_output!r}")
    if json_output is not None and not isinstance(json_output, bool) and not info.get("structured_output", False):
        raise ConfigError("the model cannot be held to a schema: model_info['structured_output'] is False")
    if not info["vision"]:
        _no_pictures(messages)
    if not info.get("multiple_system_messages", False):
        messages = one_system_message(messages)
    return Ask(messages, schemas, _choice(tool_choice, schemas), json_output, extra, stream)


def _choice(choice: ToolChoice, schemas: list[ToolSchema]) -> str | ToolSchema:
    if isinstance(choice, str):
        if choice not in ("auto", "required", "none"):
            raise ConfigError(f"tool_choice must be 'auto', 'required', 'none' or a tool, not {choice!r}")
        return choice
    schema = schema_of(choice)
    if schemas and all(schema["name"] != each["name"] for each in schemas):
        near = did_you_mean(schema["name"], [each["name"] for each in schemas])
        raise ConfigError(f"tool_choice names {schema['name']!r}, which is not among the tools{near}")
    return schema


def _no_pictures(messages: Sequence[LLMMessage]) -> None:
    for message in messages:
        if isinstance(message, FunctionExecutionResultMessage) and any(
            getattr(result, "images", None) for result in message.content
        ):
            raise ConfigError(
                "the model cannot see pictures (model_info['vision'] is False), but the result of a tool holds one; "
                "take it out with remove_images(messages), or use a model with vision"
            )
        if isinstance(message, UserMessage) and any(not isinstance(part, str) for part in message.content):
            raise ConfigError(
                f"the model cannot see pictures (model_info['vision'] is False), but a message of {message.source!r} "
                f"holds one; take it out or use a model with vision"
            )


def one_system_message(messages: Sequence[LLMMessage]) -> Sequence[LLMMessage]:
    """The same conversation with all system messages joined into one at the front."""
    systems = [message for message in messages if isinstance(message, SystemMessage)]
    if not systems or (len(systems) == 1 and messages[0] is systems[0]):
        return messages
    rest = [message for message in messages if not isinstance(message, SystemMessage)]
    return [SystemMessage(content="\n".join(message.content for message in systems)), *rest]


def checked(value: Any, kind: type[Any], message: LLMMessage) -> Any:
    """What a message holds, if it is of that kind. Raises `ConfigError`."""
    if isinstance(value, kind):
        return value
    raise ConfigError(f"a {type(message).__name__} holds {short(value)}; expected {kind.__name__}")


def parameters_of(tool: ToolSchema) -> dict[str, Any]:
    """The schema of a tool's arguments; that of no arguments for a tool that has none."""
    return dict(tool.get("parameters") or {"type": "object", "properties": {}})


def reserved(name: str) -> ConfigError:
    """The error for a field of the request that callers may not set."""
    return ConfigError(f"{name!r} is set by the client itself; use create() or create_stream() instead of giving it")


def check_names(kind: type[Any], parameters: Mapping[str, Any]) -> None:
    """Look for slips among the further fields of a client's requests; any provider's own field may be one of them.

    Raises `ConfigError` for a name that looks like a secret's, or nearly like that of an argument of the constructor.
    Warns of one that is nearly that of a common field.
    """
    for name in parameters:
        if name in FIELDS:
            continue
        plain = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_").lower()
        if plain in FIELDS:
            continue
        from ..blueprints import is_secret

        if near := nearest(plain, _arguments_of(kind), 0.8):
            raise ConfigError(
                f"{kind.__name__} has no argument {name!r}; did you mean {near!r}? "
                f"(A field of requests that is called so goes into extra_create_args.)"
            )
        if is_secret(plain):
            raise ConfigError(
                f"{kind.__name__} has no argument {name!r}; it looks like a secret, and would be sent as a field of "
                f"every request"
            )
        if near := nearest(plain, FIELDS, 0.9):
            warnings.warn(f"{name!r} is sent to the provider as it is; did you mean {near!r}?", stacklevel=4)


def _arguments_of(kind: type[Any]) -> set[str]:
    """The names of the arguments that a client's constructor knows, and those of the classes it derives from."""
    makers = [vars(each)["__init__"] for each in kind.__mro__[:-1] if "__init__" in vars(each)]
    found = [each for make in makers for each in inspect.signature(make).parameters.values()]
    return {each.name for each in found if each.kind is each.KEYWORD_ONLY and not each.name.startswith("_")}


def for_one_answer(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters without `n`, the number of answers. Raises `ConfigError` for another than 1."""
    if "n" not in parameters:
        return parameters
    if parameters["n"] not in (None, 1):
        raise ConfigError(
            f"'n' must be 1, not {short(parameters['n'])}: an agent takes one answer of a call; ask again for another"
        )
    return {name: value for name, value in parameters.items() if name != "n"}


def merged(roles: str, texts: Sequence[bytes], heads: Mapping[str, int]) -> Sequence[bytes]:
    """The texts of messages, with neighbours of one role made one: put together with commas, they are as expected.

    Args:
        roles: a letter for each message.
        heads: how long the beginning of a message is, up to its first part; it ends with two brackets.
    """
    if all(texts) and not any(role * 2 in roles for role in heads):
        return texts
    said = [(role, text) for role, text in zip(roles, texts) if text]
    before = ["", *(role for role, _ in said)]
    after = [*(role for role, _ in said[1:]), ""]
    return [
        text[heads[role] if role == last else 0 : -2 if role == following else None]
        for last, (role, text), following in zip(before, said, after)
    ]


def body_of(fields: Mapping[str, Any], name: str, texts: Iterable[bytes]) -> bytes:
    """The body of a request: its fields, and under `name` the list of messages, which are JSON already."""
    try:
        head = dumps(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"an argument of the request cannot be written as JSON: {error}") from error
    parts = [*filter(None, texts)] or [b""]
    parts[0] = clean(f'{head[:-1]}{"," if fields else ""}"{name}":[').encode() + parts[0]
    parts[-1] += b"]}"
    return b",".join(parts)


def json_instruction(output: bool | type[Any]) -> str:
    """What to tell a model that cannot be held to JSON as long as it has tools."""
    words = "When you answer without calling a tool, write nothing but JSON"
    return f"{words}." if isinstance(output, bool) else f"{words} that fits this schema: {dumps(codec.schema(output))}"
