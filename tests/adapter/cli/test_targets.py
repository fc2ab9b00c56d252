"""What ``conductor-adapter run`` finds in a file or module, and the one clear error when it finds nothing."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conductor_adapter.cli.targets import TargetError, load_target, sdk_advice

WORKER = """
from conductor_adapter.functions.decorator import worker

@worker("{name}")
def {name}(): ...
"""


HELPER = """
def fail():
    try:
        1 / 0
    except ZeroDivisionError as e:
        raise OSError('no db') from e
fail()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what a test imports is forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> str:
    """Write a module; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def types_in(target: object) -> list[str]:
    """The task types found."""
    return [spec.task_type for spec in load_target(target)]


def test_file_gives_its_workers_in_order(folder: Path) -> None:
    """Functions in the order of the file; an alias counts once, imported and given specs count too."""
    write(folder / "shared_tasks.py", WORKER.format(name="shared"))
    target = write(
        folder / "tasks.py",
        WORKER.format(name="zebra")
        + WORKER.format(name="ant")
        + """
import functools
from shared_tasks import shared
from conductor_adapter.functions.decorator import WorkerSpec
alias = ant
spec = WorkerSpec(task_type="spec", function=lambda: None)
part = worker("part")(functools.partial(lambda end: end))
nothing = len
class Proxy:
    def __getattr__(self, name): raise RuntimeError("touched")
proxy = Proxy()
""",
    )

    assert types_in(target) == ["zebra", "ant", "shared", "spec", "part"]
    assert types_in(Path(target)) == ["zebra", "ant", "shared", "spec", "part"]


def test_module_is_found_from_the_current_folder(folder: Path) -> None:
    """A dotted name works without an installed package or PYTHONPATH."""
    write(folder / "shop" / "__init__.py", "")
    write(folder / "shop" / "workers.py", WORKER.format(name="sell"))

    assert types_in("shop.workers") == ["sell"]


def test_data_classes_in_a_file_work(folder: Path) -> None:
    """The module is registered while it is imported, as data classes need it."""
    target = write(
        folder / "with-dash.py",
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass A:\n    x: dataclasses.KW_ONLY\n    y: int = 0\n" + WORKER.format(name="a"),
    )

    assert types_in(target) == ["a"]


def test_file_does_not_replace_a_module_of_its_name(folder: Path) -> None:
    """A file called like a module in use is loaded under another name."""
    import json  # noqa: PLC0415 - the module in question

    assert types_in(write(folder / "json.py", WORKER.format(name="a"))) == ["a"]
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("missing.py", r"no such file: missing.py \(looked in "),
        ("some/where", "no such file: some/where"),
        (".", "is a folder"),
        ("", "is a folder"),
        ("missing_module", "no module named 'missing_module'"),
        ("missing_package.workers", "no module named 'missing_package.workers'"),
        ("json.workers", "no module named 'json.workers'"),
    ],
)
def test_missing_target_is_one_clear_error(target: str, message: str) -> None:
    """What was looked for and where; no traceback."""
    with pytest.raises(TargetError, match=message) as caught:
        load_target(target)
    assert "Traceback" not in str(caught.value)


def test_file_that_is_no_python_is_told(folder: Path) -> None:
    """A text file is not run as Python."""
    with pytest.raises(TargetError, match=r"must end in \.py"):
        load_target(write(folder / "notes.txt", ""))


def test_no_worker_says_what_to_write(folder: Path) -> None:
    """The error names the target and the line to add."""
    with pytest.raises(TargetError, match=r"no worker in .*empty.py: write @worker"):
        load_target(write(folder / "empty.py", "x = 1"))


def test_two_workers_for_one_task_type_are_told(folder: Path) -> None:
    """Both functions and the target are named."""
    text = WORKER.format(name="pay") + '\n@worker("pay")\ndef second(): ...\n'

    with pytest.raises(TargetError, match=r"twice.py: two workers for task type 'pay'.*pay in .*second in "):
        load_target(write(folder / "twice.py", text))


@pytest.mark.parametrize("as_module", [True, False])
def test_import_error_shows_the_users_frames_only(folder: Path, as_module: bool) -> None:
    """The traceback is the user's, causes included, without our frames and the import system's."""
    write(folder / "helper_x.py", HELPER)
    target = write(folder / "broken_x.py", "import helper_x\n")

    with pytest.raises(TargetError) as caught:
        load_target("broken_x" if as_module else target)

    text = str(caught.value)
    assert text.splitlines()[0].startswith("importing ")
    assert "import helper_x" in text
    assert "raise OSError('no db') from e" in text
    assert text.endswith("OSError: no db")
    assert "ZeroDivisionError" in text
    assert "importlib" not in text
    assert "targets.py" not in text


def test_import_of_a_missing_dependency_is_not_a_missing_target(folder: Path) -> None:
    """The module is there; what it imports is not: that is told as the user's import error."""
    write(folder / "needs_x.py", "import no_such_dependency\n")

    with pytest.raises(TargetError, match=r"(?s)importing needs_x failed:.*No module named 'no_such_dependency'"):
        load_target("needs_x")


def test_syntax_error_shows_the_line(folder: Path) -> None:
    """File, line and caret, as Python itself would print them."""
    with pytest.raises(TargetError, match=r"(?s)bad_x.py.*line 2.*\^.*SyntaxError"):
        load_target(write(folder / "bad_x.py", "x = 1\ndef (\n"))


def test_exit_while_importing_is_told(folder: Path) -> None:
    """A script that runs and exits at import is told what to do, and does not end the command."""
    target = write(folder / "script_x.py", "import sys\nsys.exit(3)\n")

    with pytest.raises(TargetError, match=r"called exit\(3\).*__main__"):
        load_target(target)
    assert "script_x" not in sys.modules


def test_ctrl_c_while_importing_passes(folder: Path) -> None:
    """A user who gives up on a slow import is obeyed."""
    with pytest.raises(KeyboardInterrupt):
        load_target(write(folder / "slow_x.py", "raise KeyboardInterrupt\n"))


def test_mistake_in_a_decorator_shows_the_line_that_made_it(folder: Path) -> None:
    """What our own code raises for a wrong option is told at the user's line, without our frames."""
    target = write(folder / "option_x.py", WORKER.format(name="a").replace('"a"', '"a", threads=0'))

    with pytest.raises(TargetError, match=r"threads is 0") as caught:
        load_target(target)

    files = [line for line in str(caught.value).splitlines() if line.strip().startswith("File ")]
    assert len(files) == 1
    assert "option_x.py" in files[0]


SDK = """
import sys, types

handler = sys.modules.setdefault(
    "conductor.client.automator.task_handler", types.ModuleType("conductor.client.automator.task_handler")
)
handler._decorated_functions = {}


def worker_task(name, domain=None):
    def mark(function):
        handler._decorated_functions[(name, domain)] = {"func": function, "domain": domain, "thread_count": 1}
        return function

    return mark
"""
CANNOT = "with @worker_task of conductor-python"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["charge"], f"found a function {CANNOT} ('charge'), which this command does not run: write @worker('charge')"),
        (["b", "a"], f"found 2 functions {CANNOT} ('b', 'a'), which this command does not run: write @worker('b')"),
        (list("abcdef"), f"found 6 functions {CANNOT} ('a', 'b', 'c', 'd', 'e', …), which"),
    ],
)
def test_functions_of_conductor_python_are_counted_and_the_way_out_is_told(
    folder: Path, names: list[str], told: str
) -> None:
    """A file that was written for conductor-python does not look as if there were nothing in it."""
    write(folder / "fake_sdk.py", SDK)
    marked = "".join(f"@worker_task({name!r})\ndef {name}(): ...\n" for name in names)
    target = write(folder / "theirs.py", f"from fake_sdk import worker_task\n{marked}")

    with pytest.raises(TargetError, match="no worker in ") as caught:
        load_target(target)

    assert told in str(caught.value)


@pytest.mark.parametrize("noted", ["None", "[]", "{}"])
def test_conductor_python_without_such_functions_is_not_mentioned(folder: Path, noted: str) -> None:
    """It may be imported for its client, or keep its functions otherwise in another version."""
    write(folder / "fake_sdk.py", f"{SDK}\nhandler._decorated_functions = {noted}\n")
    target = write(folder / "theirs.py", "import fake_sdk")

    with pytest.raises(TargetError, match=r"no worker in .*: write @worker"):
        load_target(target)


def test_functions_of_conductor_python_beside_workers_are_told_too(folder: Path) -> None:
    """The workers run, and the others are not left out in silence."""
    write(folder / "fake_sdk.py", SDK)
    more = "from fake_sdk import worker_task\n@worker_task('charge')\ndef charge(): ...\n"

    assert types_in(write(folder / "both.py", WORKER.format(name="ship") + more)) == ["ship"]
    assert "found a function" in (sdk_advice() or "")


def test_without_conductor_python_there_is_no_advice() -> None:
    """Nothing of it was imported."""
    assert sdk_advice() is None
