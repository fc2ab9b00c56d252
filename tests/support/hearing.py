"""A listener for tests: remembers events in order, and lets a test wait for one."""

import threading

from conductor_adapter import RunnerEvent

__all__ = ["GUARD", "Heard"]

GUARD = 60.0  # seconds until a wrong test fails instead of hanging


class Heard(list[RunnerEvent]):
    """The events so far. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def __call__(self, event: RunnerEvent) -> None:
        """Hear of ``event``."""
        with self._changed:
            self.append(event)
            self._changed.notify_all()

    def wait_for(self, kind: type, **facts: object) -> RunnerEvent:
        """Return the first event of ``kind`` with these ``facts``, now or as soon as there is one."""

        def fits(event: RunnerEvent) -> bool:
            return isinstance(event, kind) and all(getattr(event, name) == fact for name, fact in facts.items())

        with self._changed:
            assert self._changed.wait_for(lambda: any(map(fits, self)), GUARD), f"no {kind.__name__} in {list(self)}"
            return next(filter(fits, self))
