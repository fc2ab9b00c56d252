"""One module under mutmut: in a folder of its own that holds a copy of the project, so that runs can be resumed."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ROOT / ".mutants"
COPIED = ("resilience", "conductor_adapter", "tests", "docs")
MUTMUT = Path(sys.executable).parent / "mutmut"
MEMORY = 4 << 30  # bytes a mutant may use: some of them never stop collecting
SETTINGS = """
[tool.mutmut]
source_paths = ["resilience", "conductor_adapter"]
only_mutate = {module}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider"]
timeout_multiplier = 6.0
timeout_constant = 2.0
use_git_change_detection = false
"""
KILLED = {1, 3, -9}  # failed tests, an error of pytest's, out of memory
VERDICTS = {None: "not reached", 0: "survived", 5: "survived", 33: "survived"}  # 5, 33: no test comes by it


def folder_of(module):
    """Where a module's mutants live."""
    return FOLDERS / module.removesuffix(".py").replace("/", ".")


def prepare(module, tests):
    """Copy the project as it is now; what is known of the mutants of functions that have not changed is kept."""
    folder = folder_of(module)
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    settings = SETTINGS.format(module=json.dumps([module]), tests=json.dumps(tests))
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + settings)
    shutil.copy(ROOT / "README.md", folder)
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)  # which test comes by which function may be new


def run(module, seconds, names=()):
    """Test the mutants that were not tested yet, or those of these names, one at a time, for so long at most."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with (folder_of(module) / "log.txt").open("w") as log:
        running = subprocess.Popen(  # noqa: S603 - our own tool
            [MUTMUT, "run", "--max-children", "1", *names],
            cwd=folder_of(module),
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            preexec_fn=_limited,  # noqa: PLW1509 - this program has one thread
        )
        try:
            running.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)  # what was found so far is in its files
            running.wait()


def verdicts(module):
    """What became of each mutant, by name: ``killed``, ``timeout``, ``survived`` or ``not reached``."""
    found = folder_of(module) / "mutants" / f"{module}.meta"
    codes = json.loads(found.read_text())["exit_code_by_key"] if found.exists() else {}
    return {name: "killed" if code in KILLED else VERDICTS.get(code, "timeout") for name, code in codes.items()}


def change(module, name):
    """The lines that a mutant takes away, and those in their place."""
    told = subprocess.run(  # noqa: S603 - our own tool
        [MUTMUT, "show", name], cwd=folder_of(module), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    before = [line[1:].strip() for line in told if line.startswith("-") and not line.startswith("---")]
    after = [line[1:].strip() for line in told if line.startswith("+") and not line.startswith("+++")]
    return "\n".join(before), "\n".join(after)


def _limited():
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
