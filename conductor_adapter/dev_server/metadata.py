"""The metadata part of the API: definitions of tasks and workflows."""

from collections.abc import Callable, Mapping
from typing import Any

from .answers import EMPTY, Answer, ApiError, Call, json_answer
from .definitions import Plan, TaskDef
from .engine import Engine

__all__ = ["Metadata"]


class Metadata:
    """Answers the calls below ``/api/metadata``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store

    def routes(self) -> dict[str, Callable[..., Answer]]:
        """Return the paths that it answers."""
        return {
            "POST /api/metadata/taskdefs": self._put_task_defs,
            "PUT /api/metadata/taskdefs": self._put_task_def,
            "GET /api/metadata/taskdefs": self._task_defs,
            "GET /api/metadata/taskdefs/{name}": self._task_def,
            "POST /api/metadata/workflow": self._add_plan,
            "PUT /api/metadata/workflow": self._put_plans,
            "GET /api/metadata/workflow/{name}": self._plan,
        }

    def _put_task_defs(self, call: Call) -> Answer:
        return self._save_task_defs(_objects(call))

    def _put_task_def(self, call: Call) -> Answer:
        return self._save_task_defs([call.mapping()])

    def _save_task_defs(self, wires: list[Mapping[str, Any]]) -> Answer:
        task_defs = [_valid(TaskDef.from_wire, wire) for wire in wires]
        with self._store.transaction():
            for task_def in task_defs:
                self._store.put_task_def(task_def)
        self._engine.forget_definitions()
        return EMPTY

    def _task_defs(self, _call: Call) -> Answer:
        return json_answer([task_def.to_wire() for task_def in self._store.task_defs.values()])

    def _task_def(self, _call: Call, name: str) -> Answer:
        task_def = self._store.task_defs.get(name)
        if task_def is None:
            raise ApiError(404, f"No such taskType found by name: {name}")
        return json_answer(task_def.to_wire())

    def _add_plan(self, call: Call) -> Answer:
        plan = _valid(Plan.from_wire, call.mapping())
        known = self._store.find_plan(plan.name, plan.version) is not None
        if known and not call.flag("overwrite", default=False):
            raise ApiError(409, f"Workflow with {plan.name}.{plan.version} already exists!")
        self._store.put_plan(plan)
        return EMPTY

    def _put_plans(self, call: Call) -> Answer:
        plans = [_valid(Plan.from_wire, wire) for wire in _objects(call)]
        with self._store.transaction():
            for plan in plans:
                self._store.put_plan(plan)
        return json_answer({"bulkErrorResults": {}, "bulkSuccessfulResults": [plan.name for plan in plans]})

    def _plan(self, call: Call, name: str) -> Answer:
        version = call.number("version", 0) or None
        number = self._store.find_plan(name, version)
        if number is None:
            shown = "null" if version is None else version
            raise ApiError(404, f"No such workflow found by name: {name}, version: {shown}")
        return json_answer(self._store.plan(number).to_wire())


def _objects(call: Call) -> list[Mapping[str, Any]]:
    value = call.json()
    if not isinstance(value, list) or not all(isinstance(wire, dict) for wire in value):
        raise ApiError(500, "JSON parse error: Cannot deserialize value of type `java.util.ArrayList`")
    return value


def _valid(read: Callable[[Mapping[str, Any]], Any], wire: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what it reads
    try:
        return read(wire)
    except ValueError as error:
        raise ApiError(400, str(error)) from None
