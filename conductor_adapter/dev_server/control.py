"""The control path ``/dev``: faults, seeding and counters. It is never subject to faults."""

from collections.abc import Callable, Mapping

from .answers import EMPTY, Answer, ApiError, Call, json_answer
from .engine import Engine, StartRequest
from .faults import Faults
from .routes import Api, Handler, Router

__all__ = ["Control"]


class Control:
    """Answers the calls below ``/dev``. Not thread-safe: it belongs to one event loop.

    ========================================  ==============================================================
    ``GET`` / ``PUT /dev/faults``             the faults in force, as JSON
    ``POST /dev/tasks?type=T&count=N``        start N one-task workflows in one transaction (body: their input)
    ``GET /dev/counts[?name=T]``              runs by state, and calls by kind and status
    ``GET /dev/handed-out[?least=2]``         how often each step was given to a worker
    ``POST /dev/sweep``                       evaluate all timeouts now
    ========================================  ==============================================================
    """

    def __init__(self, engine: Engine, api: Api, faults: "FaultPort", now: Callable[[], int]) -> None:
        self._engine = engine
        self._api = api
        self._faults = faults
        self._now = now
        table: Mapping[str, Handler] = {
            "GET /dev/faults": lambda _: json_answer(self._faults.get().to_wire()),
            "PUT /dev/faults": self._put_faults,
            "POST /dev/tasks": self._seed,
            "GET /dev/counts": self._counts,
            "GET /dev/handed-out": self._handed_out,
            "POST /dev/sweep": self._sweep,
        }
        self._router = Router(dict(table))

    def answer(self, call: Call) -> Answer:
        """Answer a call; errors are answers too."""
        try:
            handler, values = self._router.find(call.method, call.path)
            answer = handler(call, *values)
        except ApiError as error:
            return error.answer()
        except (TypeError, ValueError) as error:
            return ApiError(400, str(error)).answer()
        assert isinstance(answer, Answer)  # noqa: S101 - nothing here waits
        return answer

    def _put_faults(self, call: Call) -> Answer:
        self._faults.put(Faults.from_wire(call.mapping()))
        return EMPTY

    def _seed(self, call: Call) -> Answer:
        task_type, count = call.text("type"), call.number("count", 1)
        if not task_type or count < 1:
            raise ApiError(400, "say which tasks and how many: /dev/tasks?type=T&count=N")
        fields = (
            {} if (timeout := call.number("responseTimeoutSeconds", 0)) == 0 else {"responseTimeoutSeconds": timeout}
        )
        self._engine.define_task(task_type, **fields)
        given = call.mapping() if call.body else {}
        request = StartRequest(name=task_type, input=given, whole_input=True)
        return json_answer({"started": self._engine.start_many(request, count, self._now())})

    def _counts(self, call: Call) -> Answer:
        runs = self._engine.store.run_states(call.text("name"))
        return json_answer({"runs": runs, "calls": dict(self._api.counts)})

    def _handed_out(self, call: Call) -> Answer:
        counts = self._engine.store.handed_out(call.text("workflow"), least=call.number("least", 0))
        return json_answer(
            [{"workflow": flow, "reference": name, "times": times} for (flow, name), times in counts.items()]
        )

    def _sweep(self, _call: Call) -> Answer:
        return json_answer({"workflows": self._engine.sweep(self._now())})


class FaultPort:
    """Where faults are read and put in force: for those who may not touch the sockets themselves."""

    def __init__(self, get: Callable[[], Faults], put: Callable[[Faults], None]) -> None:
        self.get = get
        self.put = put
