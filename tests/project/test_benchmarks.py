import importlib
from types import SimpleNamespace

import pytest
from benchmarks import __main__ as program
from benchmarks.rig import WorkerProcess
from benchmarks.table import Row, render

NOWHERE = SimpleNamespace(name="nowhere", url="http://127.0.0.1:9/api")


@pytest.mark.parametrize("name", program.NAMES)
def test_every_benchmark_can_be_imported_and_has_rows(name):
    """A benchmark that nobody runs for a while does not rot unseen."""
    assert callable(importlib.import_module(f"benchmarks.bench_{name}").rows)


def test_the_limits_of_the_design_have_their_benchmarks():
    """There is a benchmark for every row of the limits."""
    wanted = {"allocation", "breaker", "cpu", "durable", "fairness", "fan_out", "idle", "isolation", "memory", "pair"}
    wanted |= {"many", "outbox", "soak"}
    assert set(program.NAMES) == wanted


@pytest.mark.parametrize(
    ("measured", "floor", "aim", "holds"),
    [
        (0.89, 0.9, 0.97, "NO"),
        (0.9, 0.9, 0.97, "yes"),
        (0.97, 0.9, 0.97, "yes, aim"),
        (3.01, 3, 2, "NO"),
        (3, 3, 2, "yes"),
        (2, 3, 2, "yes, aim"),
        (5, None, None, ""),
        (None, 3, 2, "skipped"),
    ],
)
def test_a_row_says_whether_its_limit_holds(measured, floor, aim, holds):
    """More is better where the aim is above the floor, less where it is below."""
    row = Row("it", measured, floor=floor, aim=aim)
    assert (row.holds, row.missed) == (holds, holds == "NO")


def test_a_floor_without_an_aim_is_refused():
    """Without both nobody could tell which direction is the better one."""
    with pytest.raises(ValueError, match="it: floor and aim"):
        Row("it", 1.0, floor=2.0)


def test_the_table_lines_its_columns_up():
    """One line a row: what, measured, floor, aim, whether it holds, and a note."""
    rows = [
        Row("breaker ÷ pybreaker", 0.1925, floor=0.5, aim=0.25, note="0.19 to 0.2"),
        Row("allocator", 123.4, "µs"),
        Row("conductor-python", None, floor=4, aim=9, note="needs make bench"),
    ]
    assert render(rows).splitlines() == [
        "what                 measured  floor   aim  holds",
        "-------------------  --------  -----  ----  --------",
        "breaker ÷ pybreaker     0.193    0.5  0.25  yes, aim  0.19 to 0.2",
        "allocator              123 µs",
        "conductor-python            -      4     9  skipped   needs make bench",
    ]


def test_the_program_prints_one_table_and_fails_if_a_floor_is_missed(monkeypatch, capsys):
    """The exit status says whether all limits hold, and a benchmark that fails does not hide the others."""
    modules = {
        ".bench_allocation": lambda *, quick: [Row("good", 1.0, floor=2, aim=1, note=str(quick))],
        ".bench_breaker": lambda **_: 1 / 0,
        ".bench_idle": lambda **_: [Row("bad", 3.0, floor=2, aim=1)],
    }
    importer = SimpleNamespace(import_module=lambda name, _: SimpleNamespace(rows=modules[name]))
    monkeypatch.setattr(program, "importlib", importer)
    assert program.main(["allocation", "--quick"]) == 0
    assert "yes, aim  True" in capsys.readouterr().out
    assert program.main(["idle", "allocation"]) == 1
    assert capsys.readouterr().out.count("measured") == 1
    assert program.main(["breaker", "allocation"]) == 1
    printed = capsys.readouterr().out
    assert "ZeroDivisionError" in printed
    assert "good" in printed


def test_the_program_knows_its_benchmarks(capsys):
    """A misspelt name is refused with the names there are."""
    with pytest.raises(SystemExit):
        program.main(["alocation"])
    assert "no benchmark 'alocation'; there are allocation, breaker" in capsys.readouterr().err


def test_a_worker_process_tells_of_its_usage():
    """The worker runs in a process whose CPU is its own, and which answers while its server is away."""
    with WorkerProcess([NOWHERE]) as worker:
        first, second = worker.usage(), worker.usage()
    assert first["clock"] < second["clock"]
    assert 0 < first["cpu"] <= second["cpu"]
