"""A server as the runner uses it: an endpoint of tasks and their results."""

from collections.abc import Callable, Sequence
from functools import partial

import attrs

from conductor_adapter.client.decoding import UnreadableTask
from conductor_adapter.client.messages import TransportError, TransportErrorKind
from conductor_adapter.client.operations import ConductorServer
from conductor_adapter.functions.decorator import WorkerSpec
from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.tasks import Task, TaskResult, TaskStatus
from conductor_adapter.transports.base import Transport, drive
from resilience.consumer import Endpoint
from resilience.errors import AnswerTooLarge, Incomplete, ResilienceError

__all__ = ["Link"]

Refuse = Callable[[str, UnreadableTask], object]

ASK_LESS = "its tasks time out, and the next poll asks for half as many"
NEVER = "a single task of type {!r} is too large to be had; have its workflow pass less, or store it outside"
GIVE_BACK_TIMEOUT = 2.0  # seconds for one task
NEXT_TASK_WAIT = 0.1  # seconds a Conductor server waits for the next task of an update-v2


class Link:
    """One Conductor server over one transport. Thread-safe.

    Attributes:
        asked: whether it was ever polled.
        answered: whether a poll ever succeeded.

    Args:
        settings: which server.
        make_transport: what makes its transport.
        give_up_after: seconds after which a poll's connection is closed; until then a late answer is taken in.
        refuse: called with the server's name and a task of it that cannot be read: the server must be told; it must
            neither block nor raise.

    Attributes:
        worker_id: how workers call themselves that have no name of their own; set before the first poll.
    """

    def __init__(
        self,
        settings: ServerSettings,
        make_transport: Callable[[ServerSettings], Transport],
        give_up_after: float,
        refuse: Refuse,
    ) -> None:
        self.name = settings.name
        self.server = ConductorServer(settings)
        self.transport = make_transport(settings)
        self.worker_id = ""
        self.asked = False
        self.answered = False
        self._settings = settings
        self._give_up_after = give_up_after
        self._refuse = refuse

    def endpoint(self, spec: WorkerSpec) -> Endpoint[Task]:
        """The server as an endpoint of the tasks of one worker."""
        return Endpoint(
            self.name,
            poll=partial(self._poll, spec),
            send=self._send,
            give_back=self._give_back,
            extend=self._extend if spec.heartbeats else None,
            lease=_lease if spec.heartbeats else None,
            exchange=self._exchange,
            exchange_wait=NEXT_TASK_WAIT,
            key=_key,
            persist=_is_final,
            bounded=self.transport.bounded,
            weight=self._settings.weight,
            max_units=self._settings.max_units,
            identity=self._settings.identity,
        )

    def _poll(self, spec: WorkerSpec, count: int, wait: float) -> Sequence[Task]:
        operation = self.server.poll(spec.task_type, spec.worker_id or self.worker_id, count, wait, spec.domain)
        self.asked = True
        try:
            answer = drive(operation, self.transport, self._give_up_after)
        except TransportError as error:
            if error.kind is not TransportErrorKind.TOO_LARGE:
                raise
            raise AnswerTooLarge(f"{error}: {ASK_LESS if count > 1 else NEVER.format(spec.task_type)}") from error
        self.answered = True
        for task in answer.unreadable:
            self._refuse(self.name, attrs.evolve(task, task_type=spec.task_type))
        if answer.problem is not None:
            raise Incomplete(answer.problem, answer.tasks)
        return answer.tasks

    def _give_back(self, tasks: Sequence[Task]) -> None:
        """Each by itself: one that the server does not take keeps no other from going back."""
        errors = {task.task_id: error for task in tasks if (error := self._refusal(task)) is not None}
        if errors:
            first = next(iter(errors.values()))
            raise Incomplete(str(first), [task for task in tasks if task.task_id not in errors]) from first

    def _refusal(self, task: Task) -> ResilienceError | None:
        try:
            drive(self.server.give_back(task), self.transport, GIVE_BACK_TIMEOUT)
        except ResilienceError as error:
            return error
        return None

    def _extend(self, task: Task, timeout: float) -> None:
        drive(self.server.extend_lease(task), self.transport, timeout)

    def _send(self, result: TaskResult, timeout: float) -> None:
        drive(self.server.update(result), self.transport, timeout)

    def _exchange(self, result: TaskResult, timeout: float) -> Sequence[Task] | None:
        """Report a result and bring the next task; None where the server was not asked for one."""
        if result.status is TaskStatus.IN_PROGRESS or not self.server.has_v2:  # the former would come back at once
            self._send(result, timeout)
            return None
        task = drive(self.server.update_v2(result), self.transport, timeout)
        if isinstance(task, Task):
            return (task,)
        if task is not None:
            self._refuse(self.name, task)
        return () if self.server.has_v2 else None


def _lease(task: Task) -> float | None:
    """For how long a task is assigned to us without a word from us."""
    return task.response_timeout or None


def _key(result: TaskResult) -> str:
    return result.task_id


def _is_final(result: TaskResult) -> bool:
    return result.is_final
