"""Runs of one task, for tests and examples without their own workflow."""

from collections.abc import Mapping
from typing import Any

import attrs

from .engine import Engine, StartRequest

__all__ = ["Seed"]


@attrs.frozen(kw_only=True)
class Seed:
    """What to start: a workflow with the name of the task type, which consists of one such task.

    Attributes:
        task_type: the task type that a worker polls.
        input: the task's input; a str is handed out unchanged, whether it is JSON or not.
        domain: the domain that the tasks are queued in.
        task_def: fields of the task's definition, in Conductor's spelling; unless specified, a new definition retries
            at once.
    """

    task_type: str
    input: Mapping[str, Any] | str = attrs.field(factory=dict)
    domain: str | None = None
    task_def: Mapping[str, Any] = attrs.field(factory=dict)

    def start(self, engine: Engine, now: int) -> str:
        """Start one run and return its id; ValueError names a wrong field of the definition."""
        engine.define_task(self.task_type, self.task_def)
        return engine.start(self._request(), now)

    def start_many(self, engine: Engine, count: int, now: int) -> None:
        """Start ``count`` runs in one transaction; ValueError names a wrong field of the definition."""
        engine.define_task(self.task_type, self.task_def)
        engine.start_many(self._request(), count, now)

    def _request(self) -> StartRequest:
        domains = {self.task_type: self.domain} if self.domain else {}
        given = self.input if isinstance(self.input, str) else dict(self.input)
        return StartRequest(name=self.task_type, input=given, domains=domains, whole_input=True)
