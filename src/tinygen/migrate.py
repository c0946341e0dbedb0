"""Rewrites the imports of AutoGen 0.4 programs and notebooks: `tinygen migrate PATH`.

Only imports change, and names that are spelled out with their module. Whatever has no counterpart keeps its import, and
is reported with its line. The code cells of a notebook are one program: what one of them imports, the others use.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
import tokenize
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

from . import codec
from .errors import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_AUTOGEN = re.compile(r"(autogen_core|autogen_agentchat|autogen_ext)(\.|$)")
_FROM = re.compile(rb"from\s+[\w.]+\s+import\b")
_RENAMED = {
    "CHAT_CACHE_VALUE_TYPE": "CreateResult",
    "ChatAgent": "BaseChatAgent",
    "ComponentFromConfig": "Component",
    "ComponentLoader": "ComponentBase",
    "ComponentSchemaType": "Component",
    "ComponentToConfig": "ComponentBase",
    "ModelCapabilities": "ModelInfo",
    "ROOT_LOGGER_NAME": "TRACE_LOGGER_NAME",
    "StreamTool": "BaseStreamTool",
    "Team": "BaseGroupChat",
}
_INSTEAD = {  # what to do where there is no counterpart
    "AzureAIChatCompletionClient": "create_client('azure:NAME'), or 'github:NAME' for GitHub's models",
    "AzureTokenProvider": "azure_ad_token_provider takes a function that returns the token",
    "BaseGroupChatManager": "derive the team from BaseGroupChat and define select_speakers",
    "BedrockInfo": "bedrock_info takes a dict",
    "DiskCacheStore": "SQLiteCacheStore keeps answers in a file",
    "GeneralError": "catch TinygenError",
    "LangChainToolAdapter": "a function that calls it is a tool",
    "LlamaCppChatCompletionClient": "create_client('llamacpp:NAME') asks a llama.cpp server",
    "MagenticOne": "MagenticOneGroupChat is the team",
    "MagenticOneCoderAgent": "an AssistantAgent with a system_message",
    "PROTOBUF_DATA_CONTENT_TYPE": "messages travel as JSON",
    "RichConsole": "Console prints in colour",
    "SKChatCompletionAdapter": "create_client() knows the providers by name",
    "SequentialRoutedAgent": "set sequential = True in the class",
    "is_component_class": "issubclass(it, Component)",
    "is_component_instance": "isinstance(it, Component)",
    "schema_to_pydantic_model": "StructuredMessageFactory(json_schema=...).ContentModel is a type made of a schema",
    **dict.fromkeys(
        "Alias FunctionWithRequirements FunctionWithRequirementsStr Import ImportFromModule with_requirements".split(),
        "code executors take plain functions, which import what they need",
    ),
    **dict.fromkeys(
        "trace_create_agent_span trace_invoke_agent_span trace_tool_span".split(),
        "listen() tells of agents, models and tools as they work",
    ),
    **dict.fromkeys(
        "ChromaDBVectorMemory Mem0Memory RedisMemory TextCanvasMemory".split(),
        "derive from Memory and define query and add, around the store",
    ),
    **dict.fromkeys(
        "GlobalSearchTool HttpTool LocalSearchTool PythonCodeExecutionTool".split(),
        "a function that does it is a tool",
    ),
    **dict.fromkeys(
        "OpenAIAgent OpenAIAssistantAgent".split(),
        "an AssistantAgent with an OpenAIResponsesClient",
    ),
    **dict.fromkeys(
        "McpWorkbench SseServerParams StdioServerParams StreamableHttpServerParams mcp_server_tools".split(),
        "MCP is not here yet",
    ),
    **dict.fromkeys(
        "FileSurfer GrpcWorkerAgentRuntime GrpcWorkerAgentRuntimeHost MultimodalWebSurfer VideoSurfer".split(),
        "not here yet",
    ),
    "create_default_code_executor": "LocalCommandLineCodeExecutor runs code on this machine, in no sandbox",
    **dict.fromkeys(
        "DockerCommandLineCodeExecutor DockerJupyterCodeExecutor JupyterCodeExecutor".split(),
        "not here yet; LocalCommandLineCodeExecutor runs code on this machine, in no sandbox",
    ),
}
_MODULES = {  # what is written small and is no name, where a program imports it and uses nothing of it
    *"agents base cache_store code_executor code_executors conditions exceptions logging memory messages".split(),
    *"model_context models state teams tool_agent tools ui utils".split(),
}
_LOGGERS = re.compile(r"autogen_(core|agentchat)(\.(events|trace))?")
_LOGGING = "runs are logged to EVENT_LOGGER_NAME, and only inside `with log_events():`"
_COMMAND = re.compile(r"^([ \t]*)[%!]", re.MULTILINE)  # what IPython runs itself
_NOT_PARSED = (SyntaxError, ValueError, RecursionError, MemoryError)  # NUL, or too deep for the parser
_SKIPPED = {"node_modules", "site-packages", "venv", "__pycache__"}


@dataclass
class Migration:
    """What becomes of one file.

    `left` are the problems, `notes` what behaves otherwise: each the number of a line (in its cell) and a sentence.
    """

    path: Path
    before: str
    after: str
    left: list[tuple[int, str]] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)

    def diff(self) -> str:
        """The change as a unified diff."""
        before, after = (text.splitlines(keepends=True) for text in (self.before, self.after))
        return "".join(difflib.unified_diff(before, after, str(self.path), str(self.path)))


def migrate(path: Path | str) -> Iterator[Migration]:
    """What would change in a file, or in every Python file and notebook below a folder. Nothing is written.

    Files that name nothing of AutoGen's are left out. Raises `FileNotFoundError` if there is no `path`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(path)!r}")
    below = (each for each in path.rglob("*") if each.suffix in (".py", ".ipynb") and each.is_file())
    for file in sorted(below) if path.is_dir() else [path]:
        inner = file.relative_to(path).parts if file != path else ()
        if _SKIPPED.intersection(inner) or any(part.startswith(".") for part in inner):
            continue
        try:
            with tokenize.open(file) as opened:
                encoding = opened.encoding
            source = file.read_bytes().decode(encoding)
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            yield Migration(file, "", "", [(1, f"cannot be read, and is left as it is: {error}")])
            continue
        if "autogen_" in source:
            yield (_notebook if file.suffix == ".ipynb" else _program)(file, source)


def write(migration: Migration) -> None:
    """Write a changed file back, in its encoding."""
    with tokenize.open(migration.path) as opened:
        encoding = opened.encoding
    migration.path.write_bytes(migration.after.encode(encoding))


def advice(name: str) -> str:
    """What to say of a name that is not in the package, behind it: "" if nothing is known of it."""
    known = sys.modules[__package__ or ""].__all__
    if name in _RENAMED:
        return f": it is {_RENAMED[name]} here"
    if name in _INSTEAD:
        return f": {_INSTEAD[name]}"
    hint = did_you_mean(name, known)
    return hint if hint.startswith("; did") else ""


def _program(path: Path, source: str) -> Migration:
    try:
        tree = ast.parse(source)
    except _NOT_PARSED as error:
        line = getattr(error, "lineno", None) or 1
        return Migration(path, source, source, [(line, "is not Python of today, and is left as it is")])
    rewriting = _Rewriting(source)
    rewriting.rewrite(tree)
    after = b"".join(rewriting.result()).decode()
    return Migration(path, source, after, sorted(rewriting.left), sorted(rewriting.notes))


def _notebook(path: Path, source: str) -> Migration:
    made = Migration(path, source, source)
    try:
        document, style = _styled(source)
        cells = [(at, cell) for at, cell in enumerate(document["cells"], 1) if cell["cell_type"] == "code"]
        texts = ["".join(cell["source"]) + "\n" for _, cell in cells]
    except (ValueError, LookupError, TypeError):
        made.left.append((1, "is not a notebook as Jupyter writes it, and is left as it is"))
        return made
    readable = [_readable(text) for text in texts]
    rewriting = _Rewriting("".join(texts))
    rewriting.rewrite(ast.parse("".join(readable)))
    lines, first = rewriting.result(), 0
    for (at, cell), text, python in zip(cells, texts, readable):
        end = first + len(text.encode().splitlines())
        if not python.strip() and "autogen_" in text:
            made.left.append((1, f"cell {at} is not Python, and is left as it is"))
        for those, found in ((made.left, rewriting.left), (made.notes, rewriting.notes)):
            those += [(line - first, f"cell {at}: {said}") for line, said in sorted(found) if first < line <= end]
        after = b"".join(lines[first:end]).decode()
        if after != text:
            cell["source"] = after[:-1] if isinstance(cell["source"], str) else after[:-1].splitlines(keepends=True)
            made.after = style(document)
        first = end
    return made


def _styled(source: str) -> tuple[Any, Callable[[Any], str]]:
    """The data in JSON text, and how to write it in the same style. Raises ValueError for a style that is not found."""
    data = codec.loads(source)
    line_end = "\r\n" if "\r\n" in source else "\n"
    last, indent = source[len(source.rstrip()) :], re.search(r"\n([ \t]+)", source)

    def write(encoder: json.JSONEncoder, data: Any) -> str:
        return encoder.encode(data).replace("\n", line_end) + last

    for ascii_only, separators in product((False, True), (None, (",", ":"))):
        encoder = json.JSONEncoder(ensure_ascii=ascii_only, indent=indent and indent[1], separators=separators)
        if write(encoder, data) == source:
            return data, partial(write, encoder)
    raise ValueError(source)


def _readable(code: str) -> str:
    """A cell's code as Python reads it, line for line: without IPython's commands, and empty if that does not help."""
    for text in (code, _COMMAND.sub(r"\1#", code)):
        try:
            ast.parse(text)
        except _NOT_PARSED:
            continue
        return text
    return "\n" * len(code.encode().splitlines())


class _Rewriting:
    """Collects what to replace in one source."""

    def __init__(self, source: str) -> None:
        self.left: list[tuple[int, str]] = []
        self.notes: list[tuple[int, str]] = []
        self._lines = source.encode().splitlines(keepends=True)  # bytes: text is also split where Python sees no line
        self._edits: list[tuple[tuple[int, int], tuple[int, int], str]] = []  # where from, where to (in bytes), what
        self._modules: dict[str, str] = {}  # the name that a module goes by in this program -> its own
        self._used: set[str] = set()  # those of them that something moved was spelled out with,
        self._kept: set[str] = set()  # and those that something left needs
        self._package = __package__ or ""
        self._known: set[str] = set(sys.modules[self._package].__all__)

    def rewrite(self, tree: ast.Module) -> None:
        """Look through a program, the imports last: what is left of a module must still be imported."""
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        for node in imports:
            self._learn(node)
        uses = list(self._uses(tree))
        self._used = {root for root, _ in uses}
        for root, use in uses:
            self._replace(use, f"{self._as(root)}.{self._name(use.attr)}")
        for part in ast.walk(tree):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and _LOGGERS.fullmatch(part.value):
                self.notes.append((part.lineno, _LOGGING))
        for node in imports:
            if isinstance(node, ast.Import):
                self._import(node)
            elif not node.level and _AUTOGEN.match(node.module or ""):
                self._import_from(node, node.module or "")

    def result(self) -> list[bytes]:
        """The lines with every replacement made; what replaces several lines stands in the first of them."""
        lines = self._lines.copy()
        for (first, start), (last, end), text in sorted(self._edits, reverse=True):
            lines[first - 1] = lines[first - 1][:start] + text.encode() + lines[last - 1][end:]
            lines[first:last] = [b""] * (last - first)
        return lines

    def _learn(self, node: ast.Import | ast.ImportFrom) -> None:
        """Which modules an import makes known by which names; what is written small may be one."""
        for each in node.names:
            if isinstance(node, ast.Import):
                if _AUTOGEN.match(each.name):
                    root = each.name.split(".")[0]
                    self._modules[each.asname or root] = each.name if each.asname else root
            elif not node.level and _AUTOGEN.match(node.module or "") and each.name.islower():
                if not self._name(each.name):
                    self._modules[each.asname or each.name] = f"{node.module}.{each.name}"

    def _uses(self, tree: ast.Module) -> Iterator[tuple[str, ast.Attribute]]:
        """Names spelled out with a module that have a counterpart: what the module goes by, and the expression."""
        within: set[ast.AST] = set()
        for node in ast.walk(tree):  # an expression before what is in it
            if node in within or not isinstance(node, (ast.Attribute, ast.Name)):
                continue
            chain: list[ast.Attribute] = []
            part: ast.expr = node
            while isinstance(part, ast.Attribute):
                chain.insert(0, part)
                part = part.value
                within.add(part)
            if not isinstance(part, ast.Name) or not isinstance(part.ctx, ast.Load) or part.id not in self._modules:
                continue
            at = next((at for at, each in enumerate(chain) if not each.attr.islower() or self._name(each.attr)), None)
            if at is not None and self._name(chain[at].attr):
                yield part.id, chain[at]
            else:
                parts = [each.attr for each in chain[: None if at is None else at + 1]]
                self._kept.add(part.id)
                self._report(part.lineno, ".".join([self._modules[part.id], *parts]))

    def _import(self, node: ast.Import) -> None:
        names = []
        for each in node.names:
            root = each.asname or each.name.split(".")[0]
            if _AUTOGEN.match(each.name) and (root in self._used or root not in self._kept):
                here = self._as(root)
                names.append(here if here == self._package else f"{self._package} as {here}")
            if root in self._kept or not _AUTOGEN.match(each.name):
                names.append(ast.unparse(each))
        if names != [ast.unparse(each) for each in node.names]:
            self._replace(node, f"import {', '.join(dict.fromkeys(names))}")

    def _import_from(self, node: ast.ImportFrom, module: str) -> None:
        moved, modules, left = [], [], []
        for each in node.names:
            here = each.asname or each.name
            if name := self._name(each.name):
                moved.append(each if name == each.name else ast.alias(name, here))
            elif here in self._modules.keys() - self._kept and (here in self._used or each.name in _MODULES):
                modules.append(f"import {self._package} as {here}")
            else:
                left.append(each)
                if here in self._used:
                    modules.append(f"import {self._package}")
                if here not in self._kept:
                    self._report(node.lineno, f"{module}.{each.name}")
        if any(each.name == "EVENT_LOGGER_NAME" for each in moved):
            self.notes.append((node.lineno, _LOGGING))
        if moved == node.names:
            self._replace_module(node, module)
        elif moved or modules:
            statements = [f"from {self._package} import {', '.join(map(ast.unparse, moved))}"] if moved else []
            statements += dict.fromkeys(modules)
            statements += [f"from {module} import {', '.join(map(ast.unparse, left))}"] if left else []
            self._replace(node, self._between(node).join(statements))

    def _as(self, root: str) -> str:
        """What tinygen is called where a module of AutoGen's goes by `root`, which is not free if that stays."""
        return self._package if root in self._kept or _AUTOGEN.match(root) else root

    def _name(self, name: str) -> str:
        """What a name of AutoGen's is called here; "" if it has no counterpart."""
        renamed = _RENAMED.get(name, name)
        return renamed if renamed in self._known or name == "*" else ""

    def _report(self, line: int, name: str) -> None:
        instead = _INSTEAD.get(name.rpartition(".")[2])
        hint = f" ({instead})" if instead else ""
        self.left.append((line, f"{name} has no counterpart here{hint}; its import is left as it is"))

    def _between(self, node: ast.stmt) -> str:
        """What stands between statements in the place of this one: a line break, if it begins a line of its own."""
        line, before = self._lines[node.lineno - 1], self._lines[node.lineno - 2] if node.lineno > 1 else b""
        indent = line[: node.col_offset]
        if indent.strip() or before.rstrip().endswith(b"\\"):
            return "; "
        return ((line[len(line.rstrip(b"\r\n")) :] or b"\n") + indent).decode()

    def _replace_module(self, node: ast.ImportFrom, module: str) -> None:
        """Replace only the module's name, so that comments and line breaks stay as they are."""
        line = self._lines[node.lineno - 1][node.col_offset :]
        if not _FROM.match(line):  # broken over lines in a strange place
            self._replace(node, f"from {self._package} import {', '.join(map(ast.unparse, node.names))}")
            return
        start = node.col_offset + line.index(module.encode())
        self._edits.append(((node.lineno, start), (node.lineno, start + len(module.encode())), self._package))

    def _replace(self, node: ast.stmt | ast.expr, text: str) -> None:
        end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
        self._edits.append(((node.lineno, node.col_offset), end, text))


def main(path: str, *, change: bool) -> int:
    """The command: print the diff, or make the change; returns 1 if something of AutoGen's is left."""
    migrations = list(migrate(path))
    changed = 0
    for each in migrations:
        if each.after == each.before:
            continue
        try:
            if change:
                write(each)
                print(f"changed {each.path}")
            else:
                sys.stdout.write(each.diff())
            changed += 1
        except OSError as error:
            each.left.append((1, f"cannot be written: {error}"))
    problems = [f"{each.path}:{line}: {problem}" for each in migrations for line, problem in each.left]
    notes = [f"{each.path}:{line}: {note}" for each in migrations for line, note in each.notes]
    for said in (*problems, *notes):
        print(said, file=sys.stderr)
    done = "changed" if change else "to change; --write does it"
    print(f"{changed} file{'s' * (changed != 1)} {done}, {len(problems)} names without a counterpart", file=sys.stderr)
    return 1 if problems else 0
