"""Code run in processes of its own: what it prints, what it may see and write, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import sys
from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared_data import needs_shared, shared
from steps import CountingLoop, run_counted
from tinygen import (
    CancellationToken,
    CodeBlock,
    CodeExecutor,
    CodeResult,
    CommandLineCodeResult,
    ConfigError,
    LocalCommandLineCodeExecutor,
)
from tinygen.code_executors import inside

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are POSIX ones here")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes as Linux shows them")


async def execute(*blocks: tuple[str, str], token: CancellationToken | None = None, **options: Any) -> Any:
    """The result of (language, code) blocks in a new executor."""
    async with LocalCommandLineCodeExecutor(**options) as executor:
        code = [CodeBlock(code, language) for language, code in blocks]
        return await executor.execute_code_blocks(code, token or CancellationToken())


def ended(pid: int) -> bool:
    """Whether the process ends, in no more than five seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 5)[0])
    finally:
        os.close(handle)


def children() -> set[int]:
    """The processes whose parent is this one, zombies among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


# --- what it prints


async def test_blocks_run_in_order_and_share_a_directory() -> None:
    result = await execute(("sh", "echo one | tee file"), ("python", "print(open('file').read().strip(), 'two')"))

    assert (result.exit_code, result.output) == (0, "one\none two\n")


async def test_the_first_block_that_fails_is_the_last_that_runs() -> None:
    result = await execute(("bash", "echo a; exit 3"), ("sh", "echo b"))

    assert (result.exit_code, result.output) == (3, "a\n")


async def test_output_and_errors_stand_in_the_order_they_were_written() -> None:
    code = "import sys\nfor i in range(3):\n    print(i)\n    print('error', i, file=sys.stderr)"

    result = await execute(("python", code))

    assert result.output == "0\nerror 0\n1\nerror 1\n2\nerror 2\n"


async def test_an_exception_is_told_with_its_traceback() -> None:
    result = await execute(("python", "1 / 0"))

    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.output


async def test_a_language_nobody_speaks_is_told_with_those_that_are_known() -> None:
    result = await execute(("ruby", "puts 1"))

    assert result.exit_code == 1
    assert result.output == "unknown language 'ruby'; known: python, py, bash, sh, shell"


async def test_a_program_that_is_not_there_is_told() -> None:
    result = await execute(("python", "print(1)"), virtual_env_context=SimpleNamespace(env_exe="/no/such/python"))

    assert result.exit_code == 127
    assert "'/no/such/python' cannot be started" in result.output


async def test_of_too_much_output_the_beginning_and_the_end_are_kept() -> None:
    code = "print('begin'); print('x' * 500_000); print('the end')"

    result = await execute(("python", code), max_output=1000)

    assert result.exit_code == 0
    assert result.output.startswith("begin\nxxx")
    assert result.output.endswith("xxx\nthe end\n")
    assert "bytes left out]" in result.output
    assert len(result.output) < 1100


async def test_output_that_just_fits_is_kept_whole() -> None:
    result = await execute(("python", "print('ä' * 499)"), max_output=999)

    assert result.output == "ä" * 499 + "\n"


@pytest.mark.parametrize("code", ["print('\ud800')", "x = '\0'"])
async def test_code_that_no_file_can_hold_fails_as_code(code: str) -> None:
    result = await execute(("python", code), ("python", "print(2)"))

    assert isinstance(result.exit_code, int)


async def test_no_blocks_are_a_success_without_output() -> None:
    assert await execute() == CommandLineCodeResult(0, "", None)


# --- its time


async def test_what_takes_too_long_ends_with_124_and_what_it_had_printed() -> None:
    result = await execute(("sh", "echo early; sleep 60"), ("sh", "echo never"), timeout=1)

    assert (result.exit_code, result.output) == (124, "early\n\nTimeout")


async def test_a_program_that_closes_its_output_is_still_waited_for() -> None:
    result = await execute(("bash", "exec >&- 2>&-; echo done > file; exit 5"))

    assert (result.exit_code, result.output) == (5, "")


async def test_a_program_that_closes_its_output_has_no_more_time_than_others() -> None:
    result = await execute(("bash", "exec >&- 2>&-; sleep 60"), timeout=1)

    assert (result.exit_code, result.output) == (124, "\nTimeout")


@linux
@pytest.mark.parametrize("how", ["sleep 60", "setsid sleep 60", "setsid nohup sleep 60 > /dev/null 2>&1"])
@pytest.mark.parametrize("after", ["sleep 60", "true"], ids=["timeout", "success"])
async def test_what_a_block_started_ends_with_it(how: str, after: str, tmp_path: Path) -> None:
    # the trap: only the direct child was told to end
    result = await execute(("sh", f"{how} & echo $! > pid; {after}"), timeout=1, work_dir=tmp_path)

    assert result.exit_code == (124 if after == "sleep 60" else 0)
    assert ended(int((tmp_path / "pid").read_text()))


@linux
@pytest.mark.parametrize("how", ["env -i setsid sleep 60", "env -i setsid sh -c 'sleep 60'"])
async def test_what_left_the_session_without_its_environment_ends_when_the_time_is_up(how: str, tmp_path: Path) -> None:
    # the trap: neither its session nor its environment tells whose it is
    await execute(("sh", f"{how} & echo $! > pid; sleep 60"), timeout=1, work_dir=tmp_path)

    assert ended(int((tmp_path / "pid").read_text()))


@linux
async def test_what_left_the_session_without_its_environment_is_cancelled_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    code = "env -i setsid sh -c 'echo $$ > begun; sleep 60; :' & wait"
    running = asyncio.ensure_future(execute(("sh", code), work_dir=tmp_path))
    pid = await asyncio.to_thread((tmp_path / "begun").read_text)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended(int(pid))


@linux
async def test_what_left_its_process_group_ends_with_the_session(tmp_path: Path) -> None:
    await execute(("bash", "set -m; env -i sleep 60 & echo $! > pid"), work_dir=tmp_path)

    assert ended(int((tmp_path / "pid").read_text()))


async def test_a_background_process_that_goes_on_printing_holds_nobody_up() -> None:
    result = await execute(("sh", "yes & echo started"), timeout=20)

    assert result.exit_code == 0
    assert "started" in result.output


@linux
@pytest.mark.parametrize("by", ["token", "asyncio"])
async def test_cancelling_kills_all_that_runs_and_raises(by: str, tmp_path: Path) -> None:
    # the trap: the token was looked at before the child was there, and never again
    os.mkfifo(tmp_path / "begun")
    token = CancellationToken()
    code = "sleep 60 & echo $$ $! > begun; wait"
    running = asyncio.ensure_future(execute(("sh", code), token=token, work_dir=tmp_path))
    pids = (await asyncio.to_thread((tmp_path / "begun").read_text)).split()

    (token if by == "token" else running).cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(ended(int(pid)) for pid in pids)
    assert [file.name for file in tmp_path.iterdir()] == ["begun"]


@linux
async def test_what_code_within_code_started_ends_with_the_outer_one(tmp_path: Path) -> None:
    # the trap: a process that an inner executor started is in a session, and had a mark, of its own
    os.mkfifo(tmp_path / "begun")
    code = (
        f"import asyncio, sys\nsys.path[:] = {sys.path}\nfrom tinygen import *\n"
        f"inner = LocalCommandLineCodeExecutor(work_dir={str(tmp_path)!r})\n"
        "block = CodeBlock('echo $$ > begun; sleep 60', 'sh')\n"
        "asyncio.run(inner.execute_code_blocks([block], CancellationToken()))\n"
    )
    running = asyncio.ensure_future(execute(("python", code)))
    pid = await asyncio.to_thread((tmp_path / "begun").read_text)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended(int(pid))


async def test_a_token_that_is_cancelled_already_lets_nothing_begin(tmp_path: Path) -> None:
    token = CancellationToken()
    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        await execute(("sh", "echo > file"), token=token, work_dir=tmp_path)

    assert list(tmp_path.iterdir()) == []


@linux
async def test_neither_zombies_nor_open_pipes_are_left() -> None:
    await execute(("sh", "true"))
    before = children(), len(os.listdir("/proc/self/fd"))

    async with LocalCommandLineCodeExecutor(timeout=0.2) as executor:
        codes = ["true", "sleep 60", "setsid sleep 60 &", "exec >&-; sleep 60", "exit 4"] * 2
        blocks = [[CodeBlock(code, "bash")] for code in codes]
        await asyncio.gather(*(executor.execute_code_blocks(each, CancellationToken()) for each in blocks))
    gc.collect()

    assert (children(), len(os.listdir("/proc/self/fd"))) == before


@linux
def test_cancelled_at_any_step_it_leaves_nothing_running(tmp_path: Path) -> None:
    def run(at: int) -> bool:
        async def main(loop: CountingLoop) -> bool:
            code = f"setsid sleep 60 & echo $! > {tmp_path}/{at}"
            task = asyncio.ensure_future(execute(("sh", code)))
            loop.arm(at, task.cancel)
            await asyncio.wait({task})
            return loop.fired

        return run_counted(main)

    at = 1
    while run(at):
        at += 1

    assert at > 5
    assert all(ended(int(pid)) for file in tmp_path.iterdir() if (pid := file.read_text()))


# --- what it sees


async def test_secrets_of_the_program_are_not_seen_by_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    # the trap: the whole environment was inherited
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("LC_TIME", "C")

    result = await execute(("python", "import os; print(sorted(os.environ))"), env={"MORE": "x"})

    assert "OPENAI_API_KEY" not in result.output
    assert all(name in result.output for name in ("'PATH'", "'LC_TIME'", "'MORE'"))


async def test_the_code_has_no_input_to_wait_for() -> None:
    result = await execute(("python", "import sys; print(repr(sys.stdin.read()))"))

    assert result.output == "''\n"


async def test_python_in_a_shell_is_the_python_of_python_blocks() -> None:
    result = await execute(("sh", "python -c 'import sys; print(sys.prefix)'"))

    assert result.output.strip() == sys.prefix


def shouted(function: Any) -> Any:
    @wraps(function)
    def louder(*args: Any) -> Any:
        return function(*args).upper()

    return louder


@shouted
def greeting(name: str) -> Path:
    """Greets somebody."""
    return f"hello {name}"  # type: ignore[return-value]


async def test_functions_can_be_imported_by_the_code() -> None:
    result = await execute(
        ("python", "from tools import greeting; print(greeting('ada'))"),
        functions=[greeting],
        functions_module="tools",
    )

    assert result.output == "hello ada\n"


def test_a_model_can_be_told_of_the_functions() -> None:
    executor = LocalCommandLineCodeExecutor(functions=[greeting])

    told = executor.format_functions_for_prompt("$module_name\n$functions")

    assert told == "functions\ndef greeting(name: 'str') -> 'Path':\n    Greets somebody."


def test_what_an_executor_was_given_can_be_read() -> None:
    executor = LocalCommandLineCodeExecutor(functions=[greeting], functions_module="tools", cleanup_temp_files=False)

    assert (executor.functions, executor.functions_module, executor.cleanup_temp_files) == ([greeting], "tools", False)


# --- where it writes


async def test_a_block_with_a_filename_is_kept_and_can_be_imported(tmp_path: Path) -> None:
    blocks = ("python", "# filename: lib/tool.py\nX = 7"), ("python", "from lib.tool import X; print(X)")

    result = await execute(*blocks, work_dir=tmp_path)

    assert result.output == "7\n"
    assert Path(result.code_file) == tmp_path / "lib" / "tool.py"


async def test_blanks_around_a_filename_are_not_part_of_it(tmp_path: Path) -> None:
    code = f"#Filename:\t x y.py {' ' * 1_000_000}\r\nprint(__file__)"

    result = await execute(("python", code), work_dir=tmp_path)

    assert result.output.strip() == str(tmp_path / "x y.py")


@pytest.mark.parametrize("cleanup", [True, False])
async def test_files_without_a_name_are_removed_unless_they_shall_stay(tmp_path: Path, cleanup: bool) -> None:
    await execute(("sh", "true"), work_dir=tmp_path, cleanup_temp_files=cleanup)

    assert len([each for each in tmp_path.iterdir() if each.suffix == ".sh"]) == (0 if cleanup else 1)


async def test_code_that_makes_its_own_file_a_directory_fails_nobody(tmp_path: Path) -> None:
    code = "import os; os.unlink(__file__); os.mkdir(__file__); print('made')"

    result = await execute(("python", code), work_dir=tmp_path)

    assert (result.exit_code, result.output) == (0, "made\n")


def workspace(tmp_path: Path) -> tuple[Path, Path]:
    """A working directory with links that lead out of it, and where they lead."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    (work / "sub").mkdir(parents=True)
    outside.mkdir()
    (work / "link_out").symlink_to(outside)
    (work / "sub" / "nested_link").symlink_to("../../outside")
    (work / "loop").symlink_to("loop")
    return work, outside


OUTSIDE = ["../x.py", "/x.py", "a/../../x.py", "..", "", ".", "a/", "~/x.py", "link_out/x.py", "sub/nested_link/x.py"]
ODD = ["loop/x.py", "a\0b.py", "a\tb.py", "C:\\x.py", "x" * 256, "link_out", "a" * 9999]


@pytest.mark.parametrize("name", [*OUTSIDE, *ODD[:-2], ODD[-1]])
async def test_a_filename_outside_of_the_workspace_is_refused(name: str, tmp_path: Path) -> None:
    work, outside = workspace(tmp_path)

    result = await execute(("python", f"# filename: {name}\nprint('ran')"), work_dir=work)

    assert result.exit_code == 1
    assert result.output.startswith("Filename is not in the workspace: ")
    assert list(outside.iterdir()) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["outside", "work"]


def filename_cases() -> Iterator[Any]:
    path = shared("badinput/guards.jsonl")
    for line in path.read_text(encoding="utf-8").splitlines() if path is not None else ():
        case = json.loads(line)
        if case["kind"] == "filename":
            yield pytest.param(case, id=case["id"])


@needs_shared("badinput/guards.jsonl")
@pytest.mark.parametrize("case", list(filename_cases()))
def test_every_bad_filename_we_know_stays_inside_or_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    work, _ = workspace(tmp_path)
    name = case["input"]["data"]
    if case["expect"] == "error":
        with pytest.raises(ConfigError):
            inside(work, name)
    else:
        assert inside(work, name) == work / name


@pytest.mark.parametrize("name", ["link_out", "loop", "pipe"])
async def test_what_stands_in_the_place_of_a_file_is_replaced_not_written_through(name: str, tmp_path: Path) -> None:
    work, outside = workspace(tmp_path)
    os.mkfifo(work / "pipe")

    result = await execute(("python", f"# filename: {name}\nprint('ran')"), work_dir=work)

    assert result.output == "ran\n"
    assert (work / name).is_file() and not (work / name).is_symlink()
    assert list(outside.iterdir()) == []


async def test_a_directory_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    work, _ = workspace(tmp_path)

    result = await execute(("python", "# filename: sub\nprint('ran')"), work_dir=work)

    assert result.exit_code == 1
    assert result.output.startswith("The code cannot be written: ")
    assert sorted(each.name for each in work.iterdir()) == ["link_out", "loop", "sub"]


# --- its directory


async def test_a_directory_of_its_own_is_private_and_goes_with_it() -> None:
    executor = LocalCommandLineCodeExecutor()
    async with executor:
        folder = executor.work_dir
        assert folder.stat().st_mode & 0o077 == 0
        await executor.execute_code_blocks([CodeBlock("touch file", "sh")], CancellationToken())

    assert not folder.exists()
    assert executor.work_dir != folder


def test_a_directory_of_its_own_goes_with_an_executor_nobody_stopped() -> None:
    folder = LocalCommandLineCodeExecutor().work_dir
    gc.collect()

    assert not folder.exists()


async def test_a_restart_begins_with_an_empty_directory() -> None:
    async with LocalCommandLineCodeExecutor() as executor:
        (executor.work_dir / "file").touch()
        await executor.restart()

        assert list(executor.work_dir.iterdir()) == []


async def test_a_named_directory_is_made_and_stays(tmp_path: Path) -> None:
    await execute(("sh", "touch file"), work_dir=tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b" / "file").exists()


def test_each_session_has_a_directory_of_its_own() -> None:
    executor = LocalCommandLineCodeExecutor(timeout=3)
    twin = executor.session()

    assert twin.work_dir != executor.work_dir
    assert twin.timeout == 3


def test_one_executor_serves_several_event_loops() -> None:
    executor = LocalCommandLineCodeExecutor()
    block = [CodeBlock("echo hi", "sh")]

    results = [asyncio.run(executor.execute_code_blocks(block, CancellationToken())) for _ in range(2)]

    assert [result.output for result in results] == ["hi\n", "hi\n"]


# --- wrong arguments, and executors of one's own


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": "60"},
        {"functions_module": "no-name"},
        {"functions": [lambda: 1]},
        {"functions": [len]},
        {"env": {"A": 1}},
        {"max_output": 0},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_when_it_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        LocalCommandLineCodeExecutor(**options)


async def test_an_executor_of_ones_own_defines_only_how_to_execute() -> None:
    class Fake(CodeExecutor):
        async def execute_code_blocks(
            self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
        ) -> CodeResult:
            return CodeResult(0, code_blocks[0].code)

    async with Fake() as executor:
        await executor.restart()
        result = await executor.execute_code_blocks([CodeBlock("x", "any")], CancellationToken())

    assert result == CodeResult(0, "x")
