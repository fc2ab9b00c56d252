"""The control path ``/dev``: faults, seeding and counters. It is never affected by faults."""

from collections.abc import Awaitable, Callable, Mapping

from .answers import EMPTY, Answer, ApiError, Call, json_answer
from .engine import Engine
from .faults import Faults, FaultSwitch
from .router import Handler, Router
from .routes import Api
from .seed import Seed

__all__ = ["Control"]


class Control:
    """Answers the calls below ``/dev``. Not thread-safe: it belongs to one event loop.

    ========================================  ==============================================================
    ``GET`` / ``PUT /dev/faults``             the faults in force, as JSON
    ``POST /dev/tasks?type=T&count=N``        start N one-task workflows in one transaction (body: their input)
    ``GET /dev/counts[?name=T]``              runs by state, and calls by kind and status
    ``GET /dev/handed-out[?least=2]``         how often each step was handed to a worker
    ``POST /dev/sweep``                       evaluate all timeouts now
    ========================================  ==============================================================
    """

    def __init__(
        self,
        engine: Engine,
        api: Api,
        faults: FaultSwitch,
        put_faults: Callable[[Faults], Awaitable[None]],
        now: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._api = api
        self._put = put_faults
        self._now = now
        table: Mapping[str, Handler] = {
            "GET /dev/faults": lambda _: json_answer(faults.current.to_wire()),
            "PUT /dev/faults": self._put_faults,
            "POST /dev/tasks": self._seed,
            "GET /dev/counts": self._counts,
            "GET /dev/handed-out": self._handed_out,
            "POST /dev/sweep": self._sweep,
        }
        self._router = Router(dict(table))

    async def answer(self, call: Call) -> Answer:
        """Answer a call; errors are answers too."""
        try:
            handler, values = self._router.find(call.method, call.path)
            answer = handler(call, *values)
            return answer if isinstance(answer, Answer) else await answer
        except ApiError as error:
            return error.answer()
        except (TypeError, ValueError) as error:
            return ApiError(400, str(error)).answer()

    async def _put_faults(self, call: Call) -> Answer:
        await self._put(Faults.from_wire(call.mapping()))
        return EMPTY

    def _seed(self, call: Call) -> Answer:
        task_type, count = call.text("type"), call.number("count", 1)
        if not task_type or count < 1:
            raise ApiError(400, "specify the tasks and their number: /dev/tasks?type=T&count=N")
        given = call.mapping() if call.body else {}
        seed = Seed(
            task_type=task_type,
            input=given.get("input") or {},
            domain=given.get("domain"),
            task_def=given.get("taskDef") or {},
        )
        seed.start_many(self._engine, count, self._now())
        return EMPTY

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
