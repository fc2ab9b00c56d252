"""The tutorial's commands do what the page shows: typed as they stand, on ports that are free."""

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from repository import ROOT, blocks_of

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
CONSOLE = re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMAND = str(Path(sys.executable).with_name("conductor-adapter"))
GUARD = 60.0  # seconds


def commands(block: str) -> list[str]:
    """The commands of a console block."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def shown(block: str) -> list[str]:
    """The output that a console block shows."""
    return [line for line in block.splitlines() if not line.startswith("$ ")]


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def ports() -> dict[str, str]:
    """A free port for each one that the page names."""
    named = sorted(set(re.findall(r"\b80\d\d\b", "".join(CONSOLE))))
    return dict(zip(named, map(str, free_ports(len(named))), strict=True))


def argv(command: str, ports: dict[str, str]) -> list[str]:
    """A command of the page as it is run here."""
    for named, free in ports.items():
        command = command.replace(named, free)
    program, *arguments = shlex.split(command)
    assert program == "conductor-adapter"
    return [COMMAND, *arguments]


@pytest.fixture
def servers(ports: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """The servers that the page starts, once they listen."""
    (block,) = [block for block in CONSOLE if "dev-server --port" in block]
    started = [
        subprocess.Popen(argv(command, ports), cwd=tmp_path, stdout=subprocess.PIPE)  # noqa: S603 - our own page
        for command in commands(block)
    ]
    try:
        for one in started:
            assert one.stdout is not None
            assert one.stdout.readline().startswith(b"dev-server ready")
        yield
    finally:
        for one in started:
            one.terminate()
        for one in started:
            one.communicate(timeout=GUARD)


@pytest.mark.usefixtures("servers")
def test_tutorial_worker_serves_both_servers_as_shown(ports: dict[str, str], tmp_path: Path) -> None:
    """The output is the page's, but for how many tasks still waited when it looked."""
    (tmp_path / "worker.py").write_text(blocks_of(PAGE)[0][1])
    (block,) = [block for block in CONSOLE if " run worker.py" in block]

    (command,) = commands(block)
    done = subprocess.run(  # noqa: S603 - our own page
        argv(command, ports), cwd=tmp_path, capture_output=True, text=True, timeout=GUARD, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.replace(f"{tmp_path.resolve()}/", "/home/you/")
    assert comparable(printed.splitlines()) == comparable(shown(block))


def comparable(lines: Iterable[str]) -> list[str]:
    """Output without what depends on how fast the machine is."""
    by_outbox = r", \d+ sent through the outbox"  # an answer that took longer than the others did
    return sorted(re.sub(by_outbox, "", re.sub(r"waiting: \d+", "waiting: …", line)) for line in lines)
