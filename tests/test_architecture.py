"""The few rules the architecture rests on. The tables say what is allowed; a new module needs a place in ROWS."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tinygen"

# A module imports from rows above its own in this list, and in its own row from what stands to its left.
ROWS = [
    "clock errors codec records usage messages cancellation telemetry waiting limits run branches journal component "
    "component_names blueprints",
    "cache transcript findings states ported models model_context memory tools code_executors conditions addresses "
    "event_log serialization timers actors routed mailboxes monitoring failures runner",
    "agents toolbox model_turn assistant coder society message_filter task_tools population tool_agent runtime",
    "seats diagrams teams conversable selector swarm digraph graph magentic_prompts magentic",
    "ui check migrate __main__",
]
STRANGERS = {
    ("runtime", each) for each in ("agents", "toolbox", "assistant", "tool_agent")
}  # neighbours that do not know each other
ALLOWED = {  # against the rows or in a circle; inside a function only
    ("codec/shapes.py", "records.py"): "finds the records registered under a tag, when it first meets one",
    ("codec/shapes.py", "messages.py"): "knows pictures and what is abstract among messages, when it first meets one",
    ("messages.py", "transcript.py"): "writes a result as text, when somebody reads it",
    ("component.py", "blueprints.py"): "writes and reads the documents of components, when one is asked for",
    ("models/__init__.py", "models/tokens.py"): "counts tokens when it is asked to",
}

# Where something that is not in the standard library may be imported, and never at import time.
# typing_extensions and typing are free for type checkers everywhere.
THIRD_PARTIES = {
    "httpx": {"models/http.py"},
    "httpx2": {"models/http.py"},
    "h11": {"models/http.py"},
    "PIL": {"messages.py"},
    "tiktoken": {"models/tokens.py"},
    "typing": {"codec/shapes.py", "tools/functions.py"},
    "typing_extensions": {"codec/shapes.py", "tools/functions.py"},
}
NEWER = {"annotationlib"}  # of a standard library younger than the oldest Python we run on
CLOCKS = {
    *(("time", name) for name in ("time", "time_ns", "localtime", "gmtime", "ctime", "strftime")),
    *(("datetime", name) for name in ("now", "utcnow", "today")),
    ("date", "today"),
    ("os", "urandom"),
}
RANDOM = {"random", "uuid", "secrets"}
REFUSED_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "imp"}
REFUSED_CALLS = {"eval", "exec", "compile", "__import__"}
GENERATES = {
    "codec/decoding.py": "the source of a decoder: field names of a class and fixed text, never data",
    "records.py": "the __init__ of a record: likewise",
}
REFUSED_ASYNCIO = {"timeout", "timeout_at", "TaskGroup", "Runner", "Barrier", "wait_for"}
LONGEST_FUNCTION = 60


@dataclass
class Import:
    """One imported module: `target` is dotted, and begins with "." if it is ours."""

    file: str
    line: int
    target: str
    when: str  # "load", "call" (inside a function) or "check" (for type checkers)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


@cache
def sources() -> dict[str, ast.Module]:
    """Path below the package -> syntax tree."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


@cache
def imports() -> list[Import]:
    return [found for file, tree in sources().items() for found in _imports(file, tree, "load")]


def _imports(file: str, node: ast.AST, when: str) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(file, node.lineno, alias.name, when) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (Import(file, node.lineno, target, when) for target in _from(file, node))
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        for child in node.body:
            yield from _imports(file, child, "check")
        for child in node.orelse:
            yield from _imports(file, child, when)
    else:
        inner = "call" if when == "load" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else when
        for child in ast.iter_child_nodes(node):
            yield from _imports(file, child, inner)


def _from(file: str, node: ast.ImportFrom) -> Iterator[str]:
    if not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
        return
    base = file.split("/")[: -node.level] + (node.module.split(".") if node.module else [])
    for alias in node.names:
        parts = [*base, alias.name]
        yield "." + ".".join(parts if _file_of(parts) else base)


def _file_of(parts: list[str]) -> str | None:
    path = "/".join(parts)
    known = sources()
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in known), None)


def our_imports() -> list[tuple[Import, str]]:
    """The imports of our own modules, with the file each one names; a missing file counts as a module of its row."""
    ours = [(each, each.target[1:].split(".")) for each in imports() if each.target.startswith(".")]
    return [(each, _file_of(parts) or "/".join(parts) + ".py") for each, parts in ours]


def where(file: str, node: ast.AST) -> str:
    return f"{file}:{node.lineno} {ast.unparse(node)[:80]}"  # type: ignore[attr-defined]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def found(test: Callable[[str, ast.AST], bool]) -> list[str]:
    """Where the sources hold a node for which `test` is true."""
    return [where(file, node) for file, tree in sources().items() for node in ast.walk(tree) if test(file, node)]


# --- who imports whom


def test_every_module_has_a_place_in_the_rows() -> None:
    known = {name for row in ROWS for name in row.split()} | {"__init__", "ext"}

    assert {room(file) for file in sources()} - known == set()


def test_the_way_through_the_house_passes_every_room_once() -> None:
    guide = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## A way through it")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in guide.splitlines() if line.startswith("| ")][1:]

    passed = sorted(name for row in rows for name in re.findall(r"`(\w+)/?`", row))

    assert passed == sorted({room(file) for file in sources()} - {"__init__", "ext"})


def test_imports_run_downwards_or_to_the_left() -> None:
    place = {name: (row, column) for row, names in enumerate(ROWS) for column, name in enumerate(names.split())}

    wrong = [
        str(each)
        for each, there in our_imports()
        if (here := room(each.file)) in place and here != room(there) and (each.file, there) not in ALLOWED
        if (here, room(there)) in STRANGERS or place.get(room(there), place[here]) >= place[here]
    ]

    assert wrong == []


def test_every_exception_to_the_rows_is_used_and_lazy() -> None:
    used = {(each.file, there): each.when for each, there in our_imports() if each.when != "check"}

    assert {pair: used.get(pair) for pair in ALLOWED} == dict.fromkeys(ALLOWED, "call")


def test_no_module_imports_itself_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for each, there in our_imports():
        if (each.file, there) not in ALLOWED and there != each.file != "__init__.py":
            graph.setdefault(each.file, set()).add(there)

    for start in graph:
        reached, ahead = set(), list(graph[start])
        while ahead:
            file = ahead.pop()
            if file not in reached:
                reached.add(file)
                ahead.extend(graph.get(file, ()))
        assert start not in reached, f"{start} imports itself through {sorted(reached)}"


def test_the_package_imports_itself_by_relative_paths_only() -> None:
    assert [str(each) for each in imports() if each.target.split(".")[0] == "tinygen"] == []


def test_nothing_in_the_core_imports_an_extra() -> None:
    assert [str(each) for each in imports() if each.target.startswith(".ext") and room(each.file) != "ext"] == []


def test_third_parties_are_imported_lazily_and_only_where_allowed() -> None:
    free = (sys.stdlib_module_names | NEWER) - {"typing"}

    wrong = [
        str(each)
        for each in imports()
        if room(each.file) != "ext" and not each.target.startswith(".")
        if (package := each.target.split(".")[0]) not in free
        if not (each.when == "check" and package in ("typing", "typing_extensions"))
        if each.when == "load" or each.file not in THIRD_PARTIES.get(package, ())
    ]

    assert wrong == []


# --- what no module does


def test_time_ids_and_chance_come_from_the_clock_module() -> None:
    def tells(file: str, node: ast.AST) -> bool:
        if file == "clock.py" or not isinstance(node, ast.Attribute):
            return False
        return (_last_name(node.value), node.attr) in CLOCKS

    by_name = {f"{module}.{name}" for module, name in CLOCKS if module in ("time", "os")}
    direct = [
        str(each)
        for each in imports()
        if each.file != "clock.py" and (each.target in by_name or each.target.split(".")[0] in RANDOM)
    ]

    assert found(tells) + direct == []


def test_nothing_is_unpickled_or_executed_from_data() -> None:
    def executes(file: str, node: ast.AST) -> bool:
        return file not in GENERATES and isinstance(node, ast.Call) and ast.unparse(node.func) in REFUSED_CALLS

    unpickled = [str(each) for each in imports() if each.target.split(".")[0] in REFUSED_MODULES]

    assert found(executes) + unpickled == []


def test_asyncio_is_used_as_python_3_10_has_it() -> None:
    def newer(file: str, node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom):
            return node.module == "asyncio" and any(alias.name in REFUSED_ASYNCIO for alias in node.names)
        return isinstance(node, ast.Attribute) and ast.unparse(node.value) == "asyncio" and node.attr in REFUSED_ASYNCIO

    assert found(newer) == []


def test_no_generator_that_yields_to_users_sets_a_context_variable() -> None:
    setters = {name for tree in sources().values() for name in _context_managers_that_set(tree)}

    wrong = [
        where(file, node)
        for file, tree in sources().items()
        for generator in functions(tree)
        if isinstance(generator, ast.AsyncFunctionDef) and not _is_context_manager(generator)
        if any(isinstance(node, ast.Yield) for node in _own(generator))
        for node in _own(generator)
        if _sets_variable(node) or (isinstance(node, ast.withitem) and _called(node.context_expr) in setters)
    ]

    assert wrong == []


@cache
def _context_variables() -> set[str]:
    return {
        ast.unparse(target)
        for tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call)
        if _called(node.value) == "ContextVar"
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }


def _sets_variable(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    return node.func.attr in ("set", "reset") and _last_name(node.func.value) in _context_variables()


def _context_managers_that_set(tree: ast.Module) -> list[str]:
    return [each.name for each in functions(tree) if _is_context_manager(each) and any(map(_sets_variable, _own(each)))]


def _is_context_manager(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(_last_name(each) in ("contextmanager", "asynccontextmanager") for each in function.decorator_list)


def _called(node: ast.AST) -> str:
    return _last_name(node.func) if isinstance(node, ast.Call) else ""


def _last_name(node: ast.AST) -> str:
    return ast.unparse(node).split(".")[-1]


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of the functions inside it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            yield child
            yield from _own(child)


def test_every_broad_except_goes_on_raising_or_says_why_not() -> None:
    silent = []
    for file, tree in sources().items():
        lines = (PACKAGE / file).read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and not isinstance(node.body[-1], ast.Raise):
                caught = re.findall(r"\w+", ast.unparse(node.type)) if node.type else ["BaseException"]
                if {"Exception", "BaseException"} & set(caught) and "#" not in lines[node.lineno - 1]:
                    silent.append(f"{file}:{node.lineno} {lines[node.lineno - 1].strip()}")

    assert silent == []


def test_every_function_fits_on_a_screen() -> None:
    long = []
    for file, tree in sources().items():
        for function in functions(tree):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
            if lines > LONGEST_FUNCTION:
                long.append(f"{file}:{function.lineno} {function.name}: {lines} lines")

    assert long == []


# --- what a program sees


def declared() -> dict[str, str]:
    """Exported name -> module, as type checkers see it."""
    body = next(
        node.body
        for node in sources()["__init__.py"].body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.asname or alias.name: "." + (node.module or "")
        for node in body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


def test_what_is_exported_is_what_type_checkers_see() -> None:
    import tinygen

    assert set(tinygen.__all__) - {"__version__"} == set(declared())
    assert len(set(tinygen.__all__)) == len(tinygen.__all__)
    assert set(tinygen.__all__) <= set(dir(tinygen))
    with pytest.raises(AttributeError, match="no_such_name"):
        tinygen.no_such_name  # noqa: B018 - the access is what is tested


def test_every_exported_name_is_the_object_of_its_module() -> None:
    import tinygen

    different = [
        name
        for name, module in declared().items()
        if getattr(tinygen, name) is not getattr(importlib.import_module(module, "tinygen"), name)
    ]

    assert different == []


def test_no_exported_name_is_a_module_too() -> None:
    assert set(declared()) & {room(file) for file in sources()} == set()


# --- what importing costs, and copies under another name

TEAM = """
import asyncio, sys
from {package} import AssistantAgent, RoundRobinGroupChat, TextMentionTermination, ReplayChatCompletionClient

async def main():
    a = AssistantAgent("writer", ReplayChatCompletionClient(["draft"]))
    b = AssistantAgent("critic", ReplayChatCompletionClient(["APPROVE"]))
    team = RoundRobinGroupChat([a, b], termination_condition=TextMentionTermination("APPROVE"), max_turns=8)
    print((await team.run(task="write")).stop_reason)

asyncio.run(main())
"""
STOPPED = "Text 'APPROVE' mentioned"
OUTSIDE = 'print(*sorted({"tinygen", "httpx", "pydantic", "typing_extensions"} & set(sys.modules)))'
CALL = """
async def call():
    from {package} import OpenAIChatCompletionClient, UserMessage
    from {package}.errors import ConnectionFailed
    client = OpenAIChatCompletionClient(model="m", api_key="k", base_url="http://127.0.0.1:9/v1", max_retries=0)
    try:
        await client.create([UserMessage(content="hi", source="user")])
    except ConnectionFailed as error:
        print(type(error).__name__)
    finally:
        await client.close()

asyncio.run(call())
"""


def run_alone(code: str, *paths: Path) -> list[str]:
    """The lines that `code` prints in a Python that sees the standard library and `paths` only."""
    program = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n{code}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-W", "error", "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def copy_to(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    for parent in (folder.parent, folder.parent.parent):
        (parent / "__init__.py").touch()
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))


def test_importing_the_package_loads_one_module() -> None:
    code = "before = set(sys.modules); import tinygen; print(*sorted(set(sys.modules) - before))"

    assert run_alone(code, PACKAGE.parent) == ["tinygen"]


def test_an_offline_run_loads_nothing_that_is_not_in_the_standard_library() -> None:
    outside = "print(*sorted({each.split('.')[0] for each in sys.modules} - {*sys.stdlib_module_names}))"

    assert run_alone(TEAM.format(package="tinygen") + outside, PACKAGE.parent) == [STOPPED, "__main__ tinygen"]


@pytest.mark.parametrize("extras", [True, False], ids=["with_extras", "without_extras"])
def test_a_copy_under_another_name_runs_a_team(tmp_path: Path, extras: bool) -> None:
    copy_to(tmp_path / "host" / "vendor" / "kit")
    if not extras:
        shutil.rmtree(tmp_path / "host" / "vendor" / "kit" / "ext", ignore_errors=True)

    assert run_alone(TEAM.format(package="host.vendor.kit") + OUTSIDE, tmp_path) == [STOPPED, ""]


def test_a_copy_calls_models_with_httpx_and_typing_extensions_alone(tmp_path: Path) -> None:
    copy_to(tmp_path / "host" / "vendor" / "kit")
    needed = ("httpx", "httpcore", "h11", "anyio", "sniffio", "idna", "certifi", "exceptiongroup", "typing_extensions")
    (tmp_path / "needed").mkdir()
    for name in needed:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            origin = Path(spec.origin)
            path = origin.parent if origin.name == "__init__.py" else origin
            os.symlink(path, tmp_path / "needed" / path.name)

    program = TEAM.format(package="host.vendor.kit") + CALL.format(package="host.vendor.kit")

    assert run_alone(program, tmp_path, tmp_path / "needed") == [STOPPED, "ConnectionFailed"]


def test_two_copies_live_in_one_process(tmp_path: Path) -> None:
    for name in ("one", "two"):
        copy_to(tmp_path / name / "vendor" / "kit")

    programs = TEAM.format(package="one.vendor.kit") + TEAM.format(package="two.vendor.kit")

    assert run_alone(programs + OUTSIDE, tmp_path) == [STOPPED, STOPPED, ""]


TWO_COPIES = """
import tinygen, vendor.kit as other
from tinygen.models.wrappers import FallbackClient
replay = lambda kit: kit.ReplayChatCompletionClient(["x"])
agent = lambda kit: kit.AssistantAgent("a", replay(kit))
team = lambda kit, **options: kit.RoundRobinGroupChat([agent(kit)], **options)
task = other.TextMessage(content="x", source="u")
"""
MIXED = [  # what is given something of another copy, what that is, and where its class is defined
    ("tinygen.RoundRobinGroupChat([agent(other)])", "BaseChatAgent", "agents"),
    ("tinygen.RoundRobinGroupChat([team(other)])", "BaseGroupChat", "teams"),
    ("team(tinygen, termination_condition=other.MaxMessageTermination(2))", "TerminationCondition", "conditions"),
    ("tinygen.AssistantAgent('a', replay(other))", "ChatCompletionClient", "models"),
    ("FallbackClient([replay(other)])", "ChatCompletionClient", "models"),
    ("tinygen.MessageFilterAgent('b', agent(other), None)", "BaseChatAgent", "agents"),
    ("tinygen.SocietyOfMindAgent('b', team(other), replay(tinygen))", "TaskRunner", "runner"),
    ("tinygen.AgentTool(agent(other))", "BaseChatAgent", "agents"),
    ("tinygen.TeamTool(team(other), 't', 'x')", "TaskRunner", "runner"),
    ("agent(tinygen).run_stream(task=task)", "BaseChatMessage", "messages"),
    ("team(tinygen).run_stream(task=[task])", "BaseChatMessage", "messages"),
]


def test_what_is_of_another_copy_is_called_so_where_it_is_given(tmp_path: Path) -> None:
    copy_to(tmp_path / "host" / "vendor" / "kit")
    program = TWO_COPIES
    for expression, _, _ in MIXED:
        program += (
            f"try: print({expression})\nexcept tinygen.ConfigError as error: print(str(error).split('; its ')[1])\n"
        )

    assert run_alone(program, PACKAGE.parent, tmp_path / "host") == [
        f"{name} is of vendor.kit.{module}, not of tinygen.{module}: two copies do not mix" for _, name, module in MIXED
    ]
