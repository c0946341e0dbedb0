"""Recorded answers with something in them put out of place: an answer or an error of ours comes of it, nothing else."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from formats import FORMATS
from recorded import recorded
from tinygen import codec
from tinygen.errors import ModelError
from tinygen.messages import AssistantMessage, UserMessage
from tinygen.models.asks import checked_ask
from tinygen.models.base import _last, _told
from tinygen.models.http import Again

BAD: list[Any] = [
    None,
    [],
    {},
    "",
    "x",
    0,
    -1,
    3.5,
    True,
    [[]],
    [None],
    {"a": None},
    "\ud800",
    "<think>",
    10**30,
    "null",
]
APIS = {
    "openai.chat": "chat",
    "openai.responses": "responses",
    "anthropic.messages": "anthropic",
    "gemini.generateContent": "gemini",
    "ollama.chat": "ollama",
}
CLIENTS = {name: made().client("http://127.0.0.1:9/v1") for name, made in FORMATS.items()}


def places(value: Any, holder: Any = None, key: Any = None) -> Iterator[tuple[Any, Any]]:
    if holder is not None:
        yield holder, key
    for each in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[each], value, each)


def mutated(value: Any, chance: random.Random) -> Any:
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 2))):
        holder, key = chance.choice([*places(value)] or [([value], 0)])
        what = chance.random()
        if what < 0.2:
            del holder[key]
        elif what < 0.3 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[key] = copy.deepcopy(chance.choice(BAD))
    return value


def whole(client: Any, response: dict[str, Any], chance: random.Random) -> Any:
    return client._whole(json.dumps(mutated(response["json"], chance)))


def streamed(client: Any, response: dict[str, Any], chance: random.Random) -> Any:
    lines = (response.get("sse") or response["ndjson"]).splitlines(keepends=True)
    for at in chance.choices(range(len(lines)), k=2):
        head, brace, rest = lines[at].partition("{")
        try:
            lines[at] = head + json.dumps(mutated(json.loads(brace + rest), chance)) + "\n"
        except ValueError:
            del lines[at:]  # a line without data
            break
    decoder, framing = client._decoder(), client._framing()
    said = [*_told(framing.feed("".join(lines).encode()), decoder), *_last(framing, decoder)]
    answer = decoder.whole()
    assert "".join(piece for piece in said if piece.__class__ is str) == answer.text
    return answer


@pytest.mark.parametrize("api", APIS)
def test_an_answer_out_of_shape_is_an_answer_that_can_be_kept_and_sent_or_an_error_of_ours(api: str) -> None:
    client = CLIENTS[APIS[api]]
    exchanges = [param.values[0] for param in recorded(api, "json", "sse", "ndjson")]
    for seed in range(300 if exchanges and exchanges[0] else 0):
        chance = random.Random(seed)
        response = chance.choice(exchanges)["response"]
        try:
            answer = (whole if "json" in response else streamed)(client, response, chance)
        except (ModelError, Again):
            continue
        result = answer.result(client._reasons)
        message = AssistantMessage(
            content=result.content, thought=result.thought, source="bot", provider_data=result.provider_data
        )
        talk = [
            UserMessage(content="hi", source="user"),
            codec.decode(AssistantMessage, codec.loads(codec.dumps(message))),
        ]
        for other in CLIENTS.values():
            json.loads(other._body(checked_ask(talk, stream=False, info=other.model_info)))
