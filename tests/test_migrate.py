"""`tinygen migrate` changes imports, keeps everything else, and says what it cannot change."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tinygen
from tinygen.__main__ import main
from tinygen.migrate import _INSTEAD, _RENAMED, migrate, write


def migrated(folder: Path, source: str) -> tuple[str, list[tuple[int, str]]]:
    file = folder / "program.py"
    file.write_text(source, encoding="utf-8")
    (migration,) = migrate(file)
    return migration.after, migration.left


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from autogen_core import AgentId\n", "from tinygen import AgentId\n"),
        ("from autogen_core.models import UserMessage as U\n", "from tinygen import UserMessage as U\n"),
        ("from autogen_agentchat.base import Team\n", "from tinygen import BaseGroupChat as Team\n"),
        ("from autogen_agentchat import agents\n", "import tinygen as agents\n"),
        ("import asyncio, autogen_core\n", "import asyncio, tinygen\n"),
        ("import autogen_agentchat.agents as aa\naa.AssistantAgent\n", "import tinygen as aa\naa.AssistantAgent\n"),
        ("from autogen_core.models import *\n", "from tinygen import *\n"),
        (
            "import autogen_core.models\nx = autogen_core.models.UserMessage(content='é', source='u')\n",
            "import tinygen\nx = tinygen.UserMessage(content='é', source='u')\n",
        ),
        (
            "def f():\n    try:\n        from autogen_core import (  # why\n            AgentId,  # who\n        )\n"
            "    except ImportError:\n        pass\n",
            "def f():\n    try:\n        from tinygen import (  # why\n            AgentId,  # who\n        )\n"
            "    except ImportError:\n        pass\n",
        ),
        ("x = '\f\u2028'\n\ffrom autogen_core import AgentId\n", "x = '\f\u2028'\n\ffrom tinygen import AgentId\n"),
        (
            "import autogen_core\nx = (autogen_core  # why\n  .models.UserMessage\n  .load)\n",
            "import tinygen\nx = (tinygen.UserMessage\n  .load)\n",
        ),
        (
            "from autogen_ext.models import openai\nopenai.OpenAIChatCompletionClient\n",
            "import tinygen as openai\nopenai.OpenAIChatCompletionClient\n",
        ),
    ],
)
def test_an_import_of_autogen_becomes_one_of_tinygen(tmp_path: Path, before: str, after: str) -> None:
    assert migrated(tmp_path, before) == (after, [])


def test_a_name_without_a_counterpart_keeps_its_import_and_is_reported(tmp_path: Path) -> None:
    after, left = migrated(tmp_path, "from autogen_core import AgentId, Nonesuch\n")

    assert after == "from tinygen import AgentId\nfrom autogen_core import Nonesuch\n"
    assert left == [(1, "autogen_core.Nonesuch has no counterpart here; its import is left as it is")]


def test_a_module_that_is_still_needed_stays_imported(tmp_path: Path) -> None:
    after, left = migrated(tmp_path, "import autogen_core\nautogen_core.AgentId\nautogen_core.Nonesuch\n")

    assert after == "import tinygen, autogen_core\ntinygen.AgentId\nautogen_core.Nonesuch\n"
    assert [line for line, _ in left] == [3]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("if 1:\n\t{}\n\tx = 1\n", "if 1:\n\t{}\n\t{}\n\tx = 1\n"),
        ("x = 1; {}; y = 2\n", "x = 1; {}; {}; y = 2\n"),
        ("if 1: {}\nelse: pass\n", "if 1: {}; {}\nelse: pass\n"),
        ("x = 1; \\\n {}\n", "x = 1; \\\n {}; {}\n"),
        ("{}\r\nx = 1\r\n", "{}\r\n{}\r\nx = 1\r\n"),
    ],
)
def test_an_import_that_is_split_stays_where_statements_may_stand(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "program.py"
    file.write_bytes(before.format("from autogen_core import AgentId, Nonesuch").encode())

    (migration,) = migrate(file)

    assert migration.after == after.format("from tinygen import AgentId", "from autogen_core import Nonesuch")


def test_a_module_that_is_used_as_a_whole_stays_imported_and_is_reported(tmp_path: Path) -> None:
    after, left = migrated(tmp_path, "import autogen_core as ac\nac.models.UserMessage\nprint(ac.__file__)\n")

    assert after == "import tinygen, autogen_core as ac\ntinygen.UserMessage\nprint(ac.__file__)\n"
    assert [line for line, _ in left] == [3]


@pytest.mark.parametrize("used", ["image()", "image.Nonesuch", "[image]"])
def test_a_function_is_not_taken_for_a_module(tmp_path: Path, used: str) -> None:
    source = f"from autogen_core import image\n{used}\n"

    after, left = migrated(tmp_path, source)

    assert after == source
    assert [line for line, _ in left] == [2]


@pytest.mark.parametrize("name", ["is_component_class", "trace_tool_span as span", "nonesuch", "_private"])
def test_a_name_written_small_that_is_only_imported_is_not_taken_for_a_module(tmp_path: Path, name: str) -> None:
    after, left = migrated(tmp_path, f"from autogen_core import AgentId, {name}\n")

    assert after == f"from tinygen import AgentId\nfrom autogen_core import {name}\n"
    assert [problem.split(" ")[0] for _, problem in left] == [f"autogen_core.{name.split(' ')[0]}"]


@pytest.mark.parametrize("source", ["import autogen_core\n\0", "import autogen_core\nx = " + "-" * 50_000 + "1\n"])
def test_what_the_parser_cannot_take_is_left(tmp_path: Path, source: str) -> None:
    after, left = migrated(tmp_path, source)

    assert after == source
    assert len(left) == 1


def test_an_expression_of_any_depth_is_looked_through(tmp_path: Path) -> None:
    after, left = migrated(tmp_path, "import autogen_core\nx = autogen_core.AgentId" + ".a()" * 900 + "\n")

    assert after.startswith("import tinygen\nx = tinygen.AgentId.a()")
    assert left == []


def test_what_is_no_file_is_passed_over_and_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "nowhere.py").symlink_to("nothing")
    (tmp_path / "round.py").symlink_to("round.py")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "other.py").write_bytes(b"# autogen_core \xff\n")
    (tmp_path / "program.py").write_text("from autogen_core import AgentId\n")

    other, program = migrate(tmp_path)

    assert "cannot be read" in other.left[0][1]
    assert program.after == "from tinygen import AgentId\n"


def test_line_ends_and_what_is_no_import_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_bytes(b'"""autogen_core"""\r\nfrom autogen_core import AgentId\r\nx  =  1\r\n')

    (migration,) = migrate(file)

    assert migration.after == '"""autogen_core"""\r\nfrom tinygen import AgentId\r\nx  =  1\r\n'


def test_a_file_that_is_not_python_is_reported_and_left(tmp_path: Path) -> None:
    after, left = migrated(tmp_path, "from autogen_core import\n")

    assert after == "from autogen_core import\n"
    assert "is left as it is" in left[0][1]


def test_the_command_shows_the_change_and_makes_it_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deep" / "program.py"
    file.parent.mkdir()
    file.write_text("from autogen_core import AgentId\n")

    assert main(["migrate", str(tmp_path)]) == 0
    assert "+from tinygen import AgentId" in capsys.readouterr().out
    assert "autogen_core" in file.read_text()

    assert main(["migrate", str(tmp_path), "--write"]) == 0
    assert file.read_text() == "from tinygen import AgentId\n"


def test_the_command_fails_when_something_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "program.py"
    file.write_text("from autogen_ext.nothing import Nonesuch\n")

    assert main(["migrate", str(file)]) == 1
    assert f"{file}:1: autogen_ext.nothing.Nonesuch has no counterpart" in capsys.readouterr().err


def test_what_to_use_instead_is_said_where_there_is_something(tmp_path: Path) -> None:
    _, left = migrated(tmp_path, "from autogen_core.code_executor import with_requirements\n")

    assert "(code executors take plain functions, which import what they need)" in left[0][1]


def test_parts_of_a_component_become_whole_ones(tmp_path: Path) -> None:
    after, left = migrated(tmp_path, "from autogen_core import Component, ComponentBase, ComponentLoader\n")

    assert after == "from tinygen import Component, ComponentBase, ComponentBase as ComponentLoader\n"
    assert left == []


NAMES = {  # of AutoGen 0.7.5, by module
    "autogen_core": (
        "Agent AgentId AgentProxy AgentMetadata AgentRuntime BaseAgent CacheStore InMemoryStore CancellationToken "
        "AgentInstantiationContext TopicId Subscription MessageContext AgentType SubscriptionInstantiationContext "
        "MessageHandlerContext MessageSerializer try_get_known_serializers_for_type UnknownPayload Image RoutedAgent "
        "ClosureAgent ClosureContext message_handler event rpc FunctionCall TypeSubscription DefaultSubscription "
        "DefaultTopicId default_subscription type_subscription TypePrefixSubscription JSON_DATA_CONTENT_TYPE "
        "PROTOBUF_DATA_CONTENT_TYPE SingleThreadedAgentRuntime ROOT_LOGGER_NAME EVENT_LOGGER_NAME TRACE_LOGGER_NAME "
        "Component ComponentBase ComponentFromConfig ComponentToConfig ComponentLoader ComponentSchemaType "
        "ComponentModel ComponentType is_component_class is_component_instance DropMessage InterventionHandler "
        "DefaultInterventionHandler trace_create_agent_span trace_invoke_agent_span trace_tool_span"
    ),
    "autogen_core.exceptions": (
        "CantHandleException UndeliverableException MessageDroppedException NotAccessibleError"
    ),
    "autogen_core.logging": (
        "LLMCallEvent LLMStreamStartEvent LLMStreamEndEvent ToolCallEvent MessageEvent MessageDroppedEvent "
        "MessageHandlerExceptionEvent AgentConstructionExceptionEvent MessageKind DeliveryStage"
    ),
    "autogen_core.models": (
        "ChatCompletionClient SystemMessage UserMessage AssistantMessage FunctionExecutionResult "
        "FunctionExecutionResultMessage CreateResult ChatCompletionTokenLogprob LLMMessage RequestUsage TopLogprob "
        "FinishReasons ModelFamily ModelInfo ModelCapabilities validate_model_info"
    ),
    "autogen_core.model_context": (
        "ChatCompletionContext ChatCompletionContextState UnboundedChatCompletionContext "
        "BufferedChatCompletionContext TokenLimitedChatCompletionContext HeadAndTailChatCompletionContext"
    ),
    "autogen_core.memory": "Memory MemoryContent MemoryQueryResult UpdateContextResult MemoryMimeType ListMemory",
    "autogen_core.tools": (
        "Tool StreamTool ToolSchema ParametersSchema BaseTool BaseToolWithState BaseStreamTool Workbench FunctionTool "
        "StaticWorkbench StaticStreamWorkbench ToolResult TextResultContent ImageResultContent ToolOverride"
    ),
    "autogen_core.tool_agent": (
        "ToolAgent ToolException ToolNotFoundException InvalidToolArgumentsException ToolExecutionException "
        "tool_agent_caller_loop"
    ),
    "autogen_core.code_executor": (
        "CodeBlock CodeResult Alias ImportFromModule FunctionWithRequirements FunctionWithRequirementsStr Import "
        "CodeExecutor with_requirements"
    ),
    "autogen_core.utils": "schema_to_pydantic_model extract_json_from_str",
    "autogen_agentchat": "EVENT_LOGGER_NAME TRACE_LOGGER_NAME",
    "autogen_agentchat.agents": (
        "BaseChatAgent AssistantAgent CodeExecutorAgent SocietyOfMindAgent UserProxyAgent MessageFilterAgent "
        "MessageFilterConfig PerSourceFilter ApprovalRequest ApprovalResponse ApprovalFuncType"
    ),
    "autogen_agentchat.base": (
        "ChatAgent Response Team TerminatedException TerminationCondition AndTerminationCondition "
        "OrTerminationCondition TaskResult TaskRunner Handoff"
    ),
    "autogen_agentchat.conditions": (
        "StopMessageTermination MaxMessageTermination TextMentionTermination TokenUsageTermination "
        "HandoffTermination TimeoutTermination ExternalTermination SourceMatchTermination TextMessageTermination "
        "FunctionCallTermination FunctionalTermination"
    ),
    "autogen_agentchat.messages": (
        "BaseMessage BaseChatMessage BaseTextChatMessage BaseAgentEvent TextMessage MultiModalMessage StopMessage "
        "HandoffMessage ToolCallSummaryMessage StructuredMessage ToolCallRequestEvent ToolCallExecutionEvent "
        "CodeGenerationEvent CodeExecutionEvent UserInputRequestedEvent MemoryQueryEvent "
        "ModelClientStreamingChunkEvent ThoughtEvent SelectSpeakerEvent SelectorEvent ChatMessage AgentEvent "
        "MessageFactory StructuredMessageFactory"
    ),
    "autogen_agentchat.state": (
        "BaseState AssistantAgentState BaseGroupChatManagerState ChatAgentContainerState RoundRobinManagerState "
        "SelectorManagerState SwarmManagerState MagenticOneOrchestratorState TeamState SocietyOfMindAgentState"
    ),
    "autogen_agentchat.teams": (
        "BaseGroupChat RoundRobinGroupChat SelectorGroupChat Swarm MagenticOneGroupChat GraphFlow DiGraphBuilder "
        "DiGraph DiGraphNode DiGraphEdge"
    ),
    "autogen_agentchat.tools": "AgentTool TeamTool",
    "autogen_agentchat.ui": "Console UserInputManager",
    "autogen_agentchat.utils": "content_to_str remove_images",
}


@pytest.mark.parametrize("module", NAMES)
def test_every_name_of_autogens_is_here_or_has_a_word_on_what_to_do(tmp_path: Path, module: str) -> None:
    _, left = migrated(tmp_path, f"from {module} import {', '.join(NAMES[module].split())}\n")

    assert [problem for _, problem in left if " has no counterpart here (" not in problem] == []
    assert not left or module.startswith("autogen_core")


@pytest.mark.parametrize(
    "name",
    [
        *("GeneralError", "BedrockInfo", "OpenAIAssistantAgent", "MagenticOneCoderAgent", "SKChatCompletionAdapter"),
        *("LlamaCppChatCompletionClient", "AzureAIChatCompletionClient", "ChromaDBVectorMemory", "TextCanvasMemory"),
        *("GlobalSearchTool", "LocalSearchTool", "LangChainToolAdapter", "McpWorkbench", "HttpTool", "FileSurfer"),
    ],
)
def test_what_is_in_no_part_of_tinygen_has_a_word_on_what_to_do(tmp_path: Path, name: str) -> None:
    _, [(_, problem)] = migrated(tmp_path, f"from autogen_ext import {name}\n")

    assert " has no counterpart here (" in problem


def test_every_name_that_migrate_has_a_word_on_stands_in_the_guide() -> None:
    guide = Path(__file__).parent.parent.joinpath("docs", "migration.md").read_text(encoding="utf-8")

    assert [name for name in (*_RENAMED, *_INSTEAD) if f"`{name}`" not in guide] == []


def test_what_is_logged_otherwise_is_noted_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "program.py"
    file.write_text("from autogen_core import EVENT_LOGGER_NAME\nx = 'autogen_agentchat.events'\n")

    assert main(["migrate", str(file)]) == 0
    assert [line.split(": ")[0] for line in capsys.readouterr().err.splitlines()][:2] == [f"{file}:1", f"{file}:2"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("AssistantAgnt", "; did you mean 'AssistantAgent'?"),
        ("creat_client", "; did you mean 'create_client'?"),
        ("Team", ": it is BaseGroupChat here"),
        ("HttpTool", ": a function that does it is a tool"),
        ("McpWorkbench", ": MCP is not here yet"),
    ],
)
def test_a_name_that_is_not_in_the_package_is_answered_with_what_to_do(name: str, advice: str) -> None:
    with pytest.raises(ImportError, match=re.escape(f"cannot import name {name!r} from 'tinygen'{advice}")):
        exec(f"from tinygen import {name}")
    with pytest.raises(AttributeError, match=re.escape(f"module 'tinygen' has no attribute {name!r}{advice}")):
        getattr(tinygen, name)
    assert not hasattr(tinygen, name)


def test_a_name_like_no_other_and_a_module_are_looked_up_as_ever() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Xyzzy_plugh'"):
        exec("from tinygen import Xyzzy_plugh")
    for private in ("__wrapped__", "_AssistantAgent"):
        with pytest.raises(AttributeError, match=f"no attribute '{private}'$"):
            getattr(tinygen, private)
    program = "from tinygen import codec, runner; import sys; print('tinygen.migrate' in sys.modules)"
    source = Path(str(tinygen.__file__)).parent.parent
    assert subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True).stdout == b"False\n"


def a_notebook(folder: Path, *cells: str, **style: Any) -> Path:
    written = [{"cell_type": "code", "outputs": [], "source": cell.splitlines(keepends=True)} for cell in cells]
    text = {"cell_type": "markdown", "metadata": {"é": []}, "source": ["from autogen_core import AgentId"]}
    file = folder / "notebook.ipynb"
    file.write_bytes((json.dumps({"cells": [text, *written], "nbformat": 4}, **style) + "\n").encode())
    return file


@pytest.mark.parametrize("style", [{"indent": 1, "ensure_ascii": False}, {"indent": "\t"}, {"separators": (",", ":")}])
def test_a_notebook_changes_in_its_code_cells_alone(tmp_path: Path, style: dict[str, Any]) -> None:
    import_both = "import autogen_core as ac\nfrom autogen_agentchat.messages import (\n    TextMessage as T)\nawait ac"
    file = a_notebook(
        tmp_path, "%pip install x\nfrom autogen_core import AgentId\n!ls", import_both, "ac.TopicId", **style
    )
    before = file.read_text(encoding="utf-8")

    (migration,) = migrate(tmp_path)
    write(migration)

    kept = "from tinygen import (\\n    TextMessage as T)".split("\\n")
    changed = json.loads(file.read_bytes())
    assert "".join(changed["cells"][1]["source"]) == "%pip install x\nfrom tinygen import AgentId\n!ls"
    assert changed["cells"][2]["source"] == [
        *("import tinygen, autogen_core as ac\n", f"{kept[0]}\n", f"{kept[1]}\n", "await ac")
    ]
    assert changed["cells"][3]["source"] == ["tinygen.TopicId"]
    for cell in (1, 2, 3):
        changed["cells"][cell]["source"] = json.loads(before)["cells"][cell]["source"]
    assert (json.dumps(changed, **style) + "\n") == before
    assert migration.left == [(4, "cell 3: autogen_core has no counterpart here; its import is left as it is")]


def test_a_cell_that_is_not_python_is_left_and_said(tmp_path: Path) -> None:
    file = a_notebook(tmp_path, "%%bash\ngrep autogen_core <x", "import autogen_core\n\nautogen_core.AgentId")

    (migration,) = migrate(file)

    cells = json.loads(migration.after)["cells"]
    assert cells[1]["source"] == ["%%bash\n", "grep autogen_core <x"]
    assert cells[2]["source"] == ["import tinygen\n", "\n", "tinygen.AgentId"]
    assert migration.left == [(1, "cell 2 is not Python, and is left as it is")]


@pytest.mark.parametrize(
    "text",
    ["autogen_core", '{"cells": "autogen_core"}', '{"cells" : [],\n "autogen_core": 1e7}', "[" * 9000 + '"autogen_"'],
)
def test_what_is_not_written_as_notebooks_are_is_left_and_said(tmp_path: Path, text: str) -> None:
    file = tmp_path / "notebook.ipynb"
    file.write_text(text, encoding="utf-8")

    (migration,) = migrate(file)

    assert migration.after == text
    assert migration.left == [(1, "is not a notebook as Jupyter writes it, and is left as it is")]


def test_a_path_that_does_not_exist_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "no/such/path"]) == 1
    assert "no/such/path" in capsys.readouterr().err
