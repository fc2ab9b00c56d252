"""The part of the API that starts, shows and stops workflows."""

from collections.abc import Callable

from .answers import EMPTY, Answer, ApiError, Call, json_answer, text_answer
from .bodies import read_start
from .engine import Engine, Missing, StartRequest, new_id
from .model import RunState
from .payloads import LARGEST, size_over
from .router import Handler

__all__ = ["Workflows"]


class Workflows:
    """Answers the calls below ``/api/workflow``.

    Args:
        engine: what the calls change.
        now: milliseconds since the epoch.
    """

    def __init__(self, engine: Engine, now: Callable[[], int]) -> None:
        self._engine = engine
        self._now = now

    def routes(self) -> dict[str, Handler]:
        """Return the paths that it answers."""
        return {
            "POST /api/workflow": self._start,
            "POST /api/workflow/{name}": self._start_named,
            "GET /api/workflow/{id}": self._workflow,
            "DELETE /api/workflow/{id}": self._terminate,
            "GET /api/workflow/{id}/status": self._workflow_status,
            "GET /api/workflow/running/{name}": self._running,
            "PUT /api/workflow/decide/{id}": self._decide,
            "POST /api/workflow/bulk/search": self._bulk_search,
        }

    def _start(self, call: Call) -> Answer:
        request = read_start(call.mapping())
        _check_size(request, len(call.body))
        try:
            return text_answer(self._engine.start(request, self._now()))
        except Missing:
            version = "null" if request.version is None else request.version
            raise ApiError(404, f"No such workflow defined. name={request.name}, version={version}") from None

    def _start_named(self, call: Call, name: str) -> Answer:
        wire = {
            "name": name,
            "input": call.mapping(),
            "version": call.number("version", 0) or None,
            "correlationId": call.text("correlationId"),
            "priority": call.number("priority", 0),
        }
        request = read_start(wire)
        _check_size(request, len(call.body))
        return text_answer(self._engine.start(request, self._now()))

    def _workflow(self, call: Call, workflow_id: str) -> Answer:
        text = self._engine.run_json(workflow_id, tasks=call.flag("includeTasks", default=True))
        return Answer(200, text.encode(), "application/json")

    def _workflow_status(self, _call: Call, workflow_id: str) -> Answer:
        workflow = self._engine.store.workflow(workflow_id)
        if workflow is None:
            raise Missing(f"No such workflow found by id: {workflow_id}")
        status = {"workflowId": workflow_id, "status": workflow.state.value}
        if workflow.correlation_id is not None:
            status["correlationId"] = workflow.correlation_id
        return json_answer(status)

    def _running(self, _call: Call, name: str) -> Answer:
        return json_answer(self._engine.store.running(name))

    def _decide(self, _call: Call, workflow_id: str) -> Answer:
        self._engine.decide(workflow_id, self._now())
        return EMPTY

    def _terminate(self, call: Call, workflow_id: str) -> Answer:
        workflow = self._engine.store.workflow(workflow_id)
        if workflow is not None and workflow.state is RunState.COMPLETED:
            raise ApiError(409, "Cannot terminate a COMPLETED workflow.")
        self._engine.terminate(workflow_id, call.text("reason"), self._now())
        return EMPTY

    def _bulk_search(self, call: Call) -> Answer:
        tasks = call.flag("includeTasks", default=True)
        found, errors = [], []
        for workflow_id in map(str, call.json()):
            try:
                found.append(self._engine.run_json(workflow_id, tasks=tasks))
            except Missing as error:
                errors.append((workflow_id, str(error)))
        body = f'{{"bulkErrorResults": {_object(errors)}, "bulkSuccessfulResults": [{", ".join(found)}]}}'
        return Answer(200, body.encode(), "application/json")


def _check_size(request: StartRequest, size: int) -> None:
    excess = size_over(LARGEST, request.input, size)
    if excess:
        limit = f"is greater than the permissible limit: {LARGEST} bytes"
        raise ApiError(500, f"The payload size: {excess} of workflow: {new_id()} {limit}")


def _object(pairs: list[tuple[str, str]]) -> str:
    return json_answer(dict(pairs)).body.decode()
