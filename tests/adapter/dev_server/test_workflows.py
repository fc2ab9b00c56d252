"""The decider: retries, delays, expressions, and a whole life of tasks against an independent model."""

import json

import attrs
import pytest
from dev_server_calls import TimedApi
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import part

from conductor_adapter.dev_server.definitions import Plan, TaskDef
from conductor_adapter.dev_server.expressions import fill
from conductor_adapter.dev_server.model import RunState, Task, TaskState, Workflow
from conductor_adapter.dev_server.workflows import Rules, begin, terminate

texts = st.text(max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
numbers = st.integers(0, 2**40)


def plan_of(*steps, **fields):
    """A definition of those steps, written as on the wire."""
    return Plan.from_wire({"name": "w", "tasks": list(steps), **fields})


def step(reference, **fields):
    """One step of a definition."""
    return {"name": "t", "taskReferenceName": reference, **fields}


@given(
    st.builds(
        Task,
        task_id=texts, workflow_id=texts, workflow_type=texts, task_type=texts, reference=texts,
        state=st.sampled_from(TaskState), input=json_values, output=json_values, seq=numbers,
        domain=st.none() | texts, correlation_id=st.none() | texts, priority=numbers, worker_id=st.none() | texts,
        reason=st.none() | texts, retry_count=numbers, retried_task_id=st.none() | texts, retried=st.booleans(),
        executed=st.booleans(), poll_count=numbers, scheduled=numbers, started=numbers, first_started=numbers,
        updated=numbers, ended=numbers, start_delay=numbers, callback_after=numbers, response_timeout=numbers,
    )
)  # fmt: skip
def test_a_task_survives_its_json(task):
    """Every field that is written down is read back."""
    assert Task.from_wire(json.loads(json.dumps(task.to_wire()))) == task


@given(
    st.builds(
        Workflow,
        workflow_id=texts, name=texts, version=numbers, plan=numbers, state=st.sampled_from(RunState),
        input=json_values, output=json_values, reason=st.none() | texts, correlation_id=st.none() | texts,
        priority=numbers, domains=st.dictionaries(texts, texts, max_size=2),
        failed=st.lists(texts, max_size=2).map(tuple), started=numbers, updated=numbers, ended=numbers,
    )
)  # fmt: skip
def test_a_workflow_survives_its_json(workflow):
    """Every field that is written down is read back."""
    assert Workflow.from_wire(json.loads(json.dumps(workflow.to_wire())), workflow.plan) == workflow


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("${workflow.input.x}", 7),
        ("v-${workflow.input.x}", "v-7"),
        ("${a.output.y} and ${a.output.d}", 'Y and {"e": 3}'),
        ("${a.output.d.e}", 3),
        ("${a.output.y.e}", None),
        ("${nobody.output.x}", None),
        ("<${nobody.output.x}>", "<>"),
        ({"l": ["${a.output.y}", 1, True]}, {"l": ["Y", 1, True]}),
        ("${a.output}", {"y": "Y", "d": {"e": 3}}),
        ("plain $ {text}", "plain $ {text}"),
    ],
)
def test_expressions_take_values_from_the_run(template, filled):
    """One expression alone gives the value itself, within a text it gives text, and nothing is null."""
    scope = {"workflow": {"input": {"x": 7}}, "a": {"output": {"y": "Y", "d": {"e": 3}}}}
    assert fill(template, scope) == filled


@pytest.mark.parametrize(
    ("logic", "delays"),
    [("FIXED", [5, 5, 5]), ("EXPONENTIAL_BACKOFF", [5, 10, 20]), ("LINEAR_BACKOFF", [10, 20, 30])],
)
def test_retry_delays_follow_the_definitions_logic(logic, delays):
    """Fixed, doubling, or growing by the scale factor."""
    task_def = TaskDef.from_wire({"name": "t", "retryDelaySeconds": 5, "retryLogic": logic, "backoffScaleFactor": 2})
    assert [task_def.delay(retries) for retries in range(3)] == delays


@pytest.mark.parametrize(
    "wire",
    [
        {"name": "w", "tasks": [step("a"), step("a")]},
        {"name": "w", "tasks": [7]},
        {"name": "w", "tasks": [step("a", inputParameters=[])]},
        {"name": "w", "version": "1"},
        {"name": "w", "version": True},
        {"name": None},
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(wire):
    """The error names the field."""
    with pytest.raises(ValueError, match=r"taskReferenceName|tasks|inputParameters|version|name"):
        Plan.from_wire(wire)


def test_a_workflow_without_tasks_completes_at_once():
    """There is nothing to wait for."""
    flow = Workflow(workflow_id="f", name="w", version=1, plan=1)
    run = begin(flow, plan_of(outputParameters={"n": 5}), 10, Rules({}, lambda: "id"))
    assert (run.workflow.state, run.workflow.output, run.workflow.ended) == (RunState.COMPLETED, {"n": 5}, 10)


@pytest.mark.parametrize(
    ("domains", "domain"),
    [({}, None), ({"t": "d"}, "d"), ({"*": "e"}, "e"), ({"t": "d, e"}, "e"), ({"t": "d,NO_DOMAIN"}, None)],
)
def test_the_domain_is_the_last_of_the_list(domains, domain):
    """Of a list it is the last one, as on a server where none of them is polled; NO_DOMAIN is none."""
    flow = Workflow(workflow_id="f", name="w", version=1, plan=1, domains=domains)
    assert begin(flow, plan_of(step("a")), 0, Rules({}, lambda: "id")).tasks[0].domain == domain


def test_a_run_that_ended_cannot_be_terminated():
    """What has ended stays as it ended."""
    flow = Workflow(workflow_id="f", name="w", version=1, plan=1)
    run = begin(flow, plan_of(), 0, Rules({}, lambda: "id"))
    assert terminate(run, "late", 5) is run


@attrs.define
class ModelTask:
    """What the model knows of the one task of a run: it counts attempts and remembers times, no more."""

    state: str = "waiting"
    attempt: int = 0
    polls: int = 0
    ready: int = 0
    deadline: int = 0
    ids: list = attrs.field(factory=list)


RETRIES, DELAY, RESPONSE = 2, 3, 5
operations = st.one_of(
    st.tuples(st.just("advance"), st.sampled_from([1_000, 2_999, 5_000])),
    st.tuples(st.just("poll"), st.integers(1, 3)),
    st.tuples(st.just("COMPLETED"), st.integers(0, 9)),
    st.tuples(st.just("FAILED"), st.integers(0, 9)),
    st.tuples(st.just("give back"), st.integers(0, 9)),
    st.tuples(st.just("callback"), st.integers(0, 9)),
    st.tuples(st.just("extend"), st.integers(0, 9)),
    st.tuples(st.just("stale"), st.integers(0, 9)),
    st.tuples(st.just("sweep"), st.just(0)),
    st.tuples(st.just("reopen"), st.just(0)),
)


class Life:
    """Runs operations on the real thing and on the model, and compares."""

    def __init__(self, path):
        self.path = path
        self.api = TimedApi(path)
        task_def = {"retryCount": RETRIES, "retryDelaySeconds": DELAY, "responseTimeoutSeconds": RESPONSE}
        self.api.define("a", task_def=task_def)
        self.model = {self.api.start(): ModelTask() for _ in range(3)}

    def do(self, name, number):
        """Do one operation."""
        if name == "advance":
            self.api.now += number
        elif name == "poll":
            self.poll(number)
        elif name == "sweep":
            self.sweep()
        elif name == "reopen":
            now = self.api.now
            self.api.close()
            self.api = TimedApi(self.path)
            self.api.now = now
        elif name == "stale":
            self.stale(number)
        else:
            self.report(name, number)

    def poll(self, count):
        """What is due is handed out, as many as were asked for, and nothing else."""
        due = {run for run, task in self.model.items() if task.state == "waiting" and task.ready <= self.api.now}
        got = self.api.poll(count)
        assert len(got) == min(count, len(due))
        for task in got:
            known = self.model[task["workflowInstanceId"]]
            assert task["workflowInstanceId"] in due
            known.polls += 1
            assert (task["retryCount"], task["pollCount"]) == (known.attempt, known.polls)
            if known.polls == 1:
                known.ids.append(task)
            assert task["taskId"] == known.ids[-1]["taskId"]
            known.state, known.deadline = "out", self.api.now + 1000 * RESPONSE

    def report(self, name, number):
        """Report the task of some run that is with a worker."""
        out = [task for task in self.model.values() if task.state == "out"]
        if not out:
            return
        known = out[number % len(out)]
        wire = known.ids[-1]
        now = self.api.now
        if name in {"COMPLETED", "FAILED"}:
            self.api.update(wire, status=name)
            if name == "COMPLETED":
                known.state = "COMPLETED"
            else:
                self.attempt_lost(known, "FAILED")
        elif name == "extend":
            self.api.update(wire, status="IN_PROGRESS", extendLease=True)
            known.deadline = now + 1000 * RESPONSE
        else:
            wait = 2 if name == "callback" else 0
            self.api.update(wire, status="IN_PROGRESS", callbackAfterSeconds=wait)
            known.state, known.ready = "waiting", now + 1000 * wait

    def stale(self, number):
        """Report an attempt that was given up long ago: it must change nothing."""
        old = [wire for task in self.model.values() for wire in task.ids[:-1]]
        if old:
            assert self.api.update(old[number % len(old)], outputData={"stale": 1})[0] == 200

    def sweep(self):
        """Whoever was silent too long loses the attempt."""
        self.api.engine.sweep(self.api.now)
        for known in self.model.values():
            if known.state == "out" and self.api.now >= known.deadline:
                self.attempt_lost(known, "TIMED_OUT")

    def attempt_lost(self, known, ending):
        """Go on to the next attempt, or end."""
        if known.attempt == RETRIES:
            known.state = ending
            return
        known.attempt += 1
        known.state, known.polls, known.ready = "waiting", 0, self.api.now + 1000 * DELAY

    def check(self):
        """Both tell the same of every run."""
        for run, known in self.model.items():
            shown = self.api.run(run)
            expected = "RUNNING" if known.state in {"waiting", "out"} else known.state
            assert shown["status"] == expected
            assert shown["output"] == {}
            assert [task["retryCount"] for task in shown["tasks"]] == list(range(known.attempt + 1))
            live = [task["status"] for task in shown["tasks"] if task["status"] in {"SCHEDULED", "IN_PROGRESS"}]
            assert live == {"waiting": ["SCHEDULED"], "out": ["IN_PROGRESS"]}.get(known.state, [])


@settings(max_examples=part(60), deadline=None)
@given(steps=st.lists(operations, max_size=25))
def test_a_whole_life_of_tasks_matches_a_model(steps, tmp_path_factory):
    """Polls, reports, time-outs, retries and reopening the file: the API and a small model always agree."""
    life = Life(tmp_path_factory.mktemp("life") / "state.db")
    try:
        for name, number in steps:
            life.do(name, number)
            life.check()
    finally:
        life.api.close()
