"""Executors: code that a model wrote, run in a process of its own.

Theory of operation. A block of code becomes a file in the executor's directory, and a process in a session of its own
that reads it. The process gets no input, none of the parent's environment but what `INHERITED` names, and one pipe for
all it prints, so that what went to stdout and what went to stderr stand in the order in which they were written. A
thread reads the pipe and watches the clock. When the process ends, its time is up, or the caller is cancelled, the
whole session is killed; on Linux also what has left it, known by the process that started it while that is there, and
by a mark in its environment.

Not guaranteed: this keeps accidents in, not attacks. The code has the rights of the user who runs this program, and
what has left its session goes on where it is not Linux, or where its environment and its parents are gone too.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from glob import glob
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from .clock import REAL, monotonic
from .component import Component
from .errors import ConfigError, positive_int
from .messages import CodeResult
from .run import GRACE
from .tools import run_in_thread
from .tools.bounds import bounded
from .tools.results import MAX_OUTPUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from typing_extensions import Self

    from .cancellation import CancellationToken
    from .messages import CodeBlock

# what code gets to see of this program's environment
INHERITED = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR LD_LIBRARY_PATH SSL_CERT_FILE SSL_CERT_DIR".split()
)
LANGUAGES = {"python": ".py", "py": ".py", "bash": ".sh", "sh": ".sh", "shell": ".sh"}
TIMED_OUT = 124  # exit codes as those of timeout(1) and of shells
CANNOT_START = 127
MARK = "TINYGEN_EXECUTION"

_FILENAME = re.compile(r"#[ \t]*filename:(.*)", re.IGNORECASE)
_LONGEST = 255  # bytes of a part of a path
_POLL = 0.05  # seconds after which to look whether a process that says nothing is still there
_PIPE = 1 << 16  # bytes
_UNKILLABLE = 2.0  # seconds to wait for a process that was killed and does not end


class CodeExecutor(Component):
    """Executes code. Derive from it to execute it elsewhere; what `start` would do is done at the first use too."""

    component_type = "code_executor"

    async def execute_code_blocks(
        self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
    ) -> CodeResult:
        """Execute the blocks in order, up to the first that fails. Raises `CancelledError` when the token says so."""
        raise NotImplementedError(f"{type(self).__name__} must define execute_code_blocks()")

    async def start(self) -> None:
        """Get ready."""

    async def stop(self) -> None:
        """Let go of what it holds. It can be used again afterwards."""

    async def restart(self) -> None:
        """Begin anew."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class CommandLineCodeResult(CodeResult, kw_only=False, tagged=False):
    """The result of a command line executor; `code_file` is where the first block was written."""

    code_file: str | None = None


class LocalCommandLineCodeExecutor(CodeExecutor):
    """Executes Python and shell code on this machine, as the user who runs this program: not a sandbox.

        async with LocalCommandLineCodeExecutor(timeout=10) as executor:
            result = await executor.execute_code_blocks([CodeBlock("print(1)", "python")], CancellationToken())

    A block that begins with `# filename: name.py` is kept under that name, inside the directory; others are removed
    when they have run. A block that takes too long ends with exit code 124 and what it had printed. When a call
    returns, or is cancelled, what it started has been killed. Needs a POSIX system.

    Args:
        timeout: seconds one block may take.
        work_dir: where code is written and runs. Left out, a directory of its own, removed by `stop`; one that is
            named is shared by all sessions.
        functions: functions the code can import. Only their source goes there, so they import what they need.
        functions_module: the module it imports them from.
        cleanup_temp_files: remove the files of blocks without a name.
        virtual_env_context: what `venv.EnvBuilder.ensure_directories` returns: the environment whose Python to use.
        env: further environment variables for the code.
        max_output: bytes to keep of what a block prints; of more, the beginning and the end.
    """

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        return {"work_dir": Path}

    def __init__(
        self,
        timeout: float = 60,
        work_dir: Path | str | None = None,
        functions: Sequence[Callable[..., Any]] = (),
        functions_module: str = "functions",
        cleanup_temp_files: bool = True,
        virtual_env_context: Any = None,
        *,
        env: Mapping[str, str] | None = None,
        max_output: int = MAX_OUTPUT,
    ) -> None:
        if os.name != "posix":
            raise ConfigError("LocalCommandLineCodeExecutor needs a POSIX system")
        if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not timeout > 0:
            raise ConfigError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        if not isinstance(functions_module, str) or not functions_module.isidentifier():
            raise ConfigError(f"functions_module must be a Python identifier, not {functions_module!r}")
        self._timeout = timeout
        self._named = Path(work_dir).absolute() if work_dir is not None else None
        self._private: Path | None = None
        self._functions_module = functions_module
        self._sources = [(function, _source_of(function)) for function in functions]
        self._cleanup = cleanup_temp_files
        self._python = str(getattr(virtual_env_context, "env_exe", sys.executable or "python3"))
        self._env = dict(env or {})
        if not all(isinstance(each, str) for pair in self._env.items() for each in pair):
            raise ConfigError(f"env must map names to text, not {env!r:.80}")
        self._max_output = positive_int("max_output", max_output)

    @property
    def timeout(self) -> float:
        """Seconds one block may take."""
        return self._timeout

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """What the code can import."""
        return [function for function, _ in self._sources]

    @property
    def functions_module(self) -> str:
        """The module it imports them from."""
        return self._functions_module

    @property
    def cleanup_temp_files(self) -> bool:
        """Whether the files of blocks without a name are removed."""
        return self._cleanup

    @property
    def work_dir(self) -> Path:
        """Where code is written and runs; made if it is not there."""
        folder = self._named or self._private
        if folder is None:
            import tempfile

            folder = self._private = Path(tempfile.mkdtemp(prefix="tinygen-code-")).resolve()
            self._remove_private = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def format_functions_for_prompt(
        self, prompt_template: str = "Your code can import these functions from the module $module_name:\n\n$functions"
    ) -> str:
        """What to tell a model of `functions`. The template may use `$module_name` and `$functions`."""
        from string import Template

        described = []
        for function, _ in self._sources:
            described.append(f"def {function.__name__}{inspect.signature(function)}:")
            described.extend(f"    {line}".rstrip() for line in (inspect.getdoc(function) or "").splitlines())
        return Template(prompt_template).substitute(module_name=self._functions_module, functions="\n".join(described))

    async def start(self) -> None:
        self.work_dir  # noqa: B018 - reading it makes it

    async def stop(self) -> None:
        if self._private is not None:
            self._private = None
            await run_in_thread(self._remove_private)

    async def execute_code_blocks(
        self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
    ) -> CommandLineCodeResult:
        exit_code = 0
        outputs: list[str] = []
        files: list[str] = []
        for block in code_blocks:
            exit_code, output = await bounded(self._finished(block, files), "code", None, cancellation_token)
            outputs.append(output)
            if exit_code != 0:
                break
        return CommandLineCodeResult(exit_code, "".join(outputs), files[0] if files else None)

    async def _finished(self, block: CodeBlock, files: list[str]) -> tuple[int, str]:
        """`_execute` in a thread; when cancelled, kill what it has started and wait a little for its end."""
        execution = _Execution(self._timeout, self._max_output)
        task = asyncio.ensure_future(run_in_thread(self._execute, block, self.work_dir, execution, files))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            execution.kill()
            await asyncio.wait({task}, timeout=GRACE / 2)
            task.cancel()
            raise

    def _execute(self, block: CodeBlock, folder: Path, execution: _Execution, files: list[str]) -> tuple[int, str]:
        """Exit code and output of one block, whose file is added to `files`."""
        language = block.language.strip().lower()
        suffix = LANGUAGES.get(language)
        if suffix is None:
            return 1, f"unknown language {block.language!r:.80}; known: {', '.join(LANGUAGES)}"
        named = _FILENAME.fullmatch(block.code.split("\n", 1)[0])
        try:
            self._write_functions(folder)
            file = folder / f"tmp_code_{REAL.new_id()[:16]}{suffix}"
            if named is not None:
                file = inside(folder, named[1].strip(" \t\r"))
            _write(file, block.code)
        except ConfigError as error:
            return 1, f"Filename is not in the workspace: {error}"
        except OSError as error:
            return 1, f"The code cannot be written: {error}"
        files.append(str(file))
        program = self._python if suffix == ".py" else "bash" if language == "bash" else "sh"
        try:
            return execution.run([program, str(file)], folder, self._environment())
        finally:
            if named is None and self._cleanup:
                with suppress(OSError):  # the code may have made a folder of it
                    file.unlink(missing_ok=True)

    def _write_functions(self, folder: Path) -> None:
        if self._sources:
            texts = ["from __future__ import annotations", *(source for _, source in self._sources)]
            _write(folder / f"{self._functions_module}.py", "\n\n\n".join(texts) + "\n")

    def _environment(self) -> dict[str, str]:
        """What the code sees; `python` in a shell is the one that Python blocks run on."""
        inherited = {name: os.environ[name] for name in os.environ if name in INHERITED or name.startswith("LC_")}
        folder = os.path.dirname(self._python)
        if folder:
            inherited["PATH"] = os.pathsep.join([folder, inherited.get("PATH", os.defpath)])
        return {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **self._env}


def inside(folder: Path, name: str) -> Path:
    """The path of `name`, which a model wrote, in `folder`. Raises `ConfigError` if it is not the name of a file there.

    Links are followed, so one that leads out of the folder leads to an error.
    """
    parts = name.split("/")
    if any(not part.isprintable() or "\\" in part or len(part.encode()) > _LONGEST for part in parts):
        raise ConfigError(f"{name!r:.80} is too long for a file name, or holds what none should")
    if parts[-1] in ("", ".") or ".." in parts or name.startswith(("/", "~")):
        raise ConfigError(f"{name!r:.80} is not the name of a file below the working directory")
    folder = folder.resolve()
    try:
        place = (folder / name).parent.resolve()
        if not place.is_relative_to(folder):
            raise ConfigError(f"{name!r:.80} leads out of the working directory")
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # a loop of links, a file where a directory should be
        raise ConfigError(f"{name!r:.80} cannot be a file in the working directory: {error!s:.80}") from error
    return place / parts[-1]


def _write(file: Path, text: str) -> None:
    """Write in place of whatever has this name: not through a link, nor into a pipe."""
    beside = file.with_name(f".{REAL.new_id()[:16]}")
    try:
        beside.write_bytes(text.encode("utf-8", "replace"))
        os.replace(beside, file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _source_of(function: Callable[..., Any]) -> str:
    """The source of a function without its decorators, which the code that imports it does not have."""
    import ast
    from textwrap import dedent

    try:
        tree = ast.parse(dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        tree = ast.Module([], [])
    if len(tree.body) != 1 or not isinstance(found := tree.body[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise ConfigError(f"functions must be plain functions that have source code, not {function!r:.80}")
    found.decorator_list = []
    return ast.unparse(found)


class _Output:
    """What a process prints: all of it, or its beginning and its end."""

    def __init__(self, limit: int) -> None:
        self._half = (limit + 1) // 2
        self._kept = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > 4 * self._half:
            self._cut()

    def text(self) -> str:
        self._cut()
        if not self._dropped:
            return self._kept.decode("utf-8", "replace")
        head, tail = self._kept[: self._half], self._kept[self._half :]
        note = f"\n[cut: {self._dropped} bytes left out]\n"
        return head.decode("utf-8", "replace") + note + tail.decode("utf-8", "replace")

    def _cut(self) -> None:
        over = max(0, len(self._kept) - 2 * self._half)
        self._dropped += over
        del self._kept[self._half : self._half + over]


class _Execution:
    """A process and all it starts, until they are gone. `run` waits, so it is called in a thread; `kill` anywhere."""

    def __init__(self, timeout: float, max_output: int) -> None:
        self._timeout = timeout
        self._output = _Output(max_output)
        self._lock = threading.Lock()
        self._killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = os.environ.get(MARK, "") + REAL.new_id()  # that of code within code begins with the outer one

    def run(self, command: list[str], folder: Path, env: dict[str, str]) -> tuple[int, str]:
        """Run the command; its exit code and what it printed."""
        with self._lock:
            if self._killed:
                return -signal.SIGKILL, ""
            try:
                process = self._process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**env, MARK: self._mark},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                return CANNOT_START, f"{command[0]!r} cannot be started: {error}"
        try:
            in_time = self._watch(process)
        finally:
            exit_code = self._bury(process)
        text = self._output.text()
        return (exit_code, text) if in_time else (TIMED_OUT, f"{text}\nTimeout")

    def kill(self) -> None:
        """Kill what is there, and let none begin."""
        with self._lock:
            self._killed = True
            process = self._process
            if process is not None:
                # asked for first: of whoever has lost its parent, nobody knows who started it
                started = _started_by(process.pid) if process.returncode is None else ()
                with suppress(ProcessLookupError, PermissionError):  # gone; macOS says of zombies that we may not
                    os.killpg(process.pid, signal.SIGKILL)
                _kill_all(started)

    def _sweep(self, session: int) -> None:
        """Kill what is left of the session, and what carries the mark wherever it has gone; only Linux shows us."""
        mark = f"{MARK}={self._mark}".encode()
        for _ in range(3):  # one may start another while we look
            names = os.listdir("/proc") if os.path.isdir("/proc") else []
            found = [int(name) for name in names if name.isdigit() and _belongs(int(name), session, mark)]
            if not found:
                break
            _kill_all(found)

    def _watch(self, process: subprocess.Popen[bytes]) -> bool:
        """Read until the process has ended; False if its time is up before."""
        assert process.stdout is not None
        deadline, pipe = monotonic() + self._timeout, process.stdout.fileno()
        os.set_blocking(pipe, False)
        with DefaultSelector() as selector:
            selector.register(pipe, EVENT_READ)
            while process.poll() is None:
                left = deadline - monotonic()
                if left <= 0:
                    return False
                if selector.select(min(left, _POLL)) and not self._read(pipe):
                    try:  # it says no more, but may go on working
                        process.wait(left)
                    except subprocess.TimeoutExpired:
                        return False
        return True

    def _read(self, pipe: int) -> bool:
        data = os.read(pipe, _PIPE)
        self._output.add(data)
        return bool(data)

    def _bury(self, process: subprocess.Popen[bytes]) -> int:
        """Kill what is left, and see to it that nothing of it stays; the exit code."""
        self.kill()
        self._sweep(process.pid)
        assert process.stdout is not None
        with process.stdout as pipe:
            with suppress(BlockingIOError):  # there is no more
                for _ in range(64):  # what it wrote last; whoever could not be killed may go on writing
                    if not self._read(pipe.fileno()):
                        break
        try:
            return process.wait(_UNKILLABLE)
        except subprocess.TimeoutExpired:  # it hangs in the kernel; the next process to be started buries it
            return -signal.SIGKILL
        finally:
            with self._lock:
                self._process = None


def _started_by(pid: int) -> list[int]:
    """A process, those that it has started, and those that they have; only Linux shows us that."""
    found = [pid]
    for each in found:  # which grows on the way
        for file in glob(f"/proc/{each}/task/*/children"):
            with suppress(OSError):  # it is gone
                found += map(int, Path(file).read_text().split())
    return found


def _belongs(pid: int, session: int, mark: bytes) -> bool:
    try:
        if os.getsid(pid) == session:
            return pid != session
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read()
    except OSError:  # it is gone, or another user's
        return False


def _kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(OSError):  # it is gone
            os.kill(pid, signal.SIGKILL)
