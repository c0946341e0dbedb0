"""A research group of seven: admin, planner, engineer, scientist, executor, critic and writer.

A function says who speaks next. The engineer's code runs on this machine; what it prints goes to the scientist, or
back to the engineer if it fails. Offline they speak from a script; name a model to make them think, and be the admin
yourself: `TINYGEN_MODEL=openai:gpt-4o-mini python examples/research_group.py`
"""

import asyncio
import os
from collections.abc import Sequence

from tinygen import (
    ApprovalRequest,
    ApprovalResponse,
    AssistantAgent,
    BaseAgentEvent,
    BaseChatMessage,
    ChatCompletionClient,
    CodeExecutorAgent,
    Console,
    LocalCommandLineCodeExecutor,
    MaxMessageTermination,
    ReplayChatCompletionClient,
    SelectorGroupChat,
    TextMentionTermination,
    UserProxyAgent,
    create_client,
)

NAME = os.environ.get("TINYGEN_MODEL")
CODE = """```python
from math import log

sieve = [False] * 2 + [True] * 99_999
for n in range(2, 317):
    if sieve[n]:
        sieve[n * n :: n] = [False] * len(sieve[n * n :: n])
for k in range({start}, 6):
    n = 10**k
    primes = sum(sieve[:n])
    print(f"{{n:>6}} {{primes:>5}} {{primes / (n / log(n)):.3f}}")
```"""
SCRIPTS = {
    "planner": ["1. engineer: count the primes below powers of ten. 2. scientist: compare with n / ln n. 3. writer."],
    "critic": ["The plan can be checked at every step. APPROVED", "True to the numbers, and short. APPROVED"],
    "engineer": [CODE.format(start=0), "ln 1 is 0; I begin with 10.\n" + CODE.format(start=1)],
    "scientist": ["From 1,000 on the ratio falls towards 1, slowly, as the prime number theorem says."],
    "writer": ["How many primes are there below n? About n / ln n: below 100,000 the guess is a tenth too low."],
}
ORDERS = {
    "planner": "You break the task into steps for the engineer (code), the scientist (meaning) and the writer.",
    "critic": "You check plans and texts. Answer APPROVED if they are good, else what is wrong with them.",
    "engineer": "You write one complete Python script that prints its results, in a ```python block. If it failed, "
    "say why and write it again in full.",
    "scientist": "You say what the numbers mean. You write no code.",
    "writer": "You write two sentences about the findings, for everybody.",
}
AFTER = {
    "user": "planner",
    "planner": "critic",
    "engineer": "executor",
    "scientist": "writer",
    "writer": "critic",
}


def next_speaker(thread: Sequence[BaseAgentEvent | BaseChatMessage]) -> str:
    last = thread[-1]
    if last.source == "critic":
        author = next(message.source for message in reversed(thread) if message.source in ("planner", "writer"))
        return "admin" if "APPROVED" in last.to_text() else author
    if last.source == "admin":
        return "writer" if any(message.source == "writer" for message in thread) else "engineer"
    if last.source == "executor":
        return "engineer" if "exited with an error" in last.to_text() else "scientist"
    return AFTER[last.source]


def model(*script: str) -> ChatCompletionClient:
    return create_client(NAME) if NAME else ReplayChatCompletionClient(list(script))


def only_python(request: ApprovalRequest) -> ApprovalResponse:
    return ApprovalResponse(approved="```sh" not in request.code, reason="Python only, please")


async def main() -> None:
    answers = iter(["Go ahead.", "Print it. TERMINATE"])
    members = [
        AssistantAgent(role, model_client=model(*SCRIPTS[role]), description=orders, system_message=orders)
        for role, orders in ORDERS.items()
    ]
    admin = UserProxyAgent("admin", input_func=None if NAME else lambda prompt: next(answers))
    executor = CodeExecutorAgent(
        "executor", LocalCommandLineCodeExecutor(timeout=20), sources=["engineer"], approval_func=only_python
    )
    group = SelectorGroupChat(
        [admin, *members, executor],
        model_client=model(),
        selector_func=next_speaker,
        termination_condition=TextMentionTermination("TERMINATE", sources=["admin"]) | MaxMessageTermination(40),
    )
    result = await Console(group.run_stream(task="How good is n / ln n as a guess of the number of primes below n?"))
    print(result.stop_reason)
    await executor.close()


if __name__ == "__main__":
    asyncio.run(main())
