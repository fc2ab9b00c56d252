"""Changes to a runner while it is running (rule P7)."""

from conductor_adapter.declaring import WorkerSpec
from conductor_adapter.forks import refuse_copy
from conductor_adapter.running.links import Link
from conductor_adapter.tasks import Task
from resilience.polling import Poller

__all__ = ["Changing"]


class Changing:
    """The methods that change a running runner; a base of `WorkerRunner`, which provides the pollers.

    In a process that was forked from the one it was started in, all methods raise RuntimeError.
    """

    _links: dict[str, Link]
    _pollers: list[tuple[WorkerSpec, Poller[Task]]]
    _pid: int | None

    def pause(self, server: str) -> None:
        """Take no more tasks from ``server`` until `resume`; running tasks finish, and their results are sent.

        Raises:
            ValueError: there is no server with this name.
        """
        for poller in self._pollers_of(server):
            poller.pause(server)

    def resume(self, server: str) -> None:
        """Take tasks from ``server`` again.

        Raises:
            ValueError: there is no server with this name.
        """
        for poller in self._pollers_of(server):
            poller.resume(server)

    def set_weight(self, server: str, weight: int) -> None:
        """Change the claim of ``server`` to the threads of every worker.

        Raises:
            ValueError: there is no server with this name, or the weight is below 1 (TypeError: not an integer).
        """
        for poller in self._pollers_of(server):
            poller.set_weight(server, weight)

    def set_threads(self, task_type: str, threads: int) -> None:
        """Change how many tasks of ``task_type`` can run at once, in every domain that it has a worker for.

        If the number is reduced, running tasks finish, and no other starts until there is room.

        Raises:
            ValueError: no worker has this task type; or the number is below 1, or the servers' reserves leave no thread
                for the others (TypeError: not an integer).
        """
        refuse_copy(self._pid)
        found = [poller for spec, poller in self._pollers if spec.task_type == task_type]
        if not found:
            known = ", ".join(sorted({repr(spec.task_type) for spec, _ in self._pollers}))
            raise ValueError(f"there is no worker for task type {task_type!r}: there are workers for {known}")
        for poller in found:
            poller.set_capacity(threads)

    def _pollers_of(self, server: str) -> list[Poller[Task]]:
        refuse_copy(self._pid)
        if server not in self._links:
            raise ValueError(f"unknown server {server!r}: known are {', '.join(map(repr, self._links))}")
        return [poller for _, poller in self._pollers]
