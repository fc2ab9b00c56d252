"""The way to a server: how long calls take, and what becomes of them and of their answers."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from greenlet import getcurrent

from conductor_adapter.client.messages import HttpAnswer, HttpCall, TransportError, TransportErrorKind

from .judge import Judge, Life
from .machine import Machine, Strand
from .plan import FAULTS, Event
from .server import Server

SLOW = 1.0
AFTERMATH = 12.0  # seconds after which no call that began in trouble is in flight any more
DRIPPING = 30.0  # seconds that a dripping answer keeps a patient transport
ANSWERS = {
    "error": HttpAnswer(503, {}, b""),
    "proxy": HttpAnswer(404, {"content-type": "text/html"}, b"<html>no such page</html>"),
    "throttle": HttpAnswer(429, {"retry-after": "1"}, b""),
    "away": HttpAnswer(500, {}, b'{"status":500,"message":"Connection is not available","retryable":false}'),
    "locked": HttpAnswer(423, {}, b'{"status":423,"message":"the task is locked"}'),
    "garbage": HttpAnswer(200, {"content-type": "text/html"}, b"<html>please log in</html>"),
}
SAVED = HttpAnswer(500, {}, b'{"status":500,"message":"transient","retryable":true}')


class Net:
    """All servers, and what is wrong with the ways to them."""

    def __init__(self, machine: Machine, judge: Judge, servers: Sequence[Server], events: Sequence[Event]) -> None:
        self.machine = machine
        self.judge = judge
        self.servers = {server.name: server for server in servers}
        self._faults: dict[str, list[Event]] = {server.name: [] for server in servers}
        self._calls: dict[str, dict[Flight, None]] = {server.name: {} for server in servers}  # in their order
        for server in servers:
            server.troubled = partial(self._was_troubled, events)
        for event in events:
            name = servers[event.whom].name if event.kind in (*FAULTS, "die", "forget") else None
            if name is not None:
                self._faults[name].append(event)
                if event.kind in ("die", "forget"):
                    machine.at(event.at, lambda name=name, event=event: self._die(name, event))

    def fault(self, name: str, calls: str) -> Event | None:
        """What is wrong with a server now, as far as such calls are concerned."""
        now = self.machine.now
        there = (event for event in self._faults[name] if event.at <= now < event.at + event.seconds)
        return next((event for event in there if event.calls in ("all", calls)), None)

    def _was_troubled(self, events: Sequence[Event], since: float) -> bool:
        """Whether anything went wrong since then anywhere, or its consequences may not have been over."""
        now = self.machine.now
        return any(event.at <= now and since <= event.at + event.seconds + AFTERMATH for event in events)

    def flies(self, flight: "Flight") -> None:
        """A call is on its way."""
        self._calls[flight.server.name][flight] = None

    def landed(self, flight: "Flight") -> None:
        """Nobody waits for it any more."""
        self._calls[flight.server.name].pop(flight, None)

    def _die(self, name: str, event: Event) -> None:
        if event.kind == "forget":
            self.servers[name].forget()
        self.servers[name].drop_polls()
        for flight in tuple(self._calls[name]):
            flight.dies()


class Line:
    """A transport of one process to one server."""

    def __init__(self, net: Net, life: Life, server: str, *, bounded: bool) -> None:
        self.bounded = bounded
        self._net = net
        self._life = life
        self._server = net.servers[server]

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Send a call and wait for its answer."""
        told = json.loads(call.body) if call.body else None
        judge, name = self._net.judge, self._server.name
        self._net.machine.point("send")
        if told is not None:
            judge.sends(self._life, name, told)
        answer = None
        try:
            answer = Flight(self._net, self._server, call).fly(timeout, patient=not self.bounded)
        finally:
            if told is not None:
                judge.sent(self._life, name, told, answer)
        self._net.machine.point("sent")
        if told is None or call.path.endswith("-v2"):
            self._note_tasks(answer)
        return answer

    def close(self) -> None:
        """Nothing is kept."""

    def _note_tasks(self, answer: HttpAnswer) -> None:
        if answer.status != 200 or answer.body[:1] not in (b"[", b"{"):
            return
        tasks = json.loads(answer.body)
        self._net.judge.brought(self._life, tasks if isinstance(tasks, list) else [tasks])


class Flight:
    """One call on its way."""

    def __init__(self, net: Net, server: Server, call: HttpCall) -> None:
        self.server = server
        self._net = net
        self._machine = net.machine
        self._call = call
        self._calls = "polls" if call.body is None else "updates"
        self._strand: Strand = getcurrent()  # type: ignore[assignment]
        self._came: HttpAnswer | TransportError | None = None
        self._over = False

    def fly(self, timeout: float, *, patient: bool) -> HttpAnswer:
        """Wait for the answer; a ``patient`` transport may be held up for longer than its timeout by a slow one."""
        machine, trip = self._machine, self.server.plan.trip
        machine.at(machine.now + trip, self._arrive)
        self._net.flies(self)
        try:
            while self._came is None and not machine.park(timeout) and patient and self._drips():
                timeout = DRIPPING
        finally:
            self._over = True
            self._net.landed(self)
        if self._came is None:
            raise TransportError(TransportErrorKind.TIMEOUT, "no answer in time")
        if isinstance(self._came, TransportError):
            raise self._came
        return self._came

    def dies(self) -> None:
        """The server dies: whoever waits hears of it."""
        self._come(TransportError(TransportErrorKind.BROKEN, "connection reset"))

    def _drips(self) -> bool:
        fault = self._net.fault(self.server.name, self._calls)
        return fault is not None and fault.kind == "late"

    def _arrive(self) -> None:
        fault = self._net.fault(self.server.name, self._calls)
        kind = "" if fault is None else fault.kind
        if kind in ("refuse", "die", "forget"):
            self._come(TransportError(TransportErrorKind.CONNECT, "connection refused"))
        elif kind in ANSWERS:
            self._answer(ANSWERS[kind])
        elif kind == "hang" and fault is not None:
            self._machine.at(fault.at + fault.seconds, self._arrive)
        elif kind == "late" and fault is not None:
            end = fault.at + fault.seconds
            self._serve(lambda answer: self._machine.at(end, lambda: self._answer(answer)))
        elif kind != "drop":
            self._serve_badly(kind)

    def _serve_badly(self, kind: str) -> None:
        trip = self.server.plan.trip
        replies: dict[str, Callable[[HttpAnswer], None]] = {
            "swallow": _nobody,
            "saved": lambda _: self._answer(SAVED),
            "broken": lambda _: self._come(TransportError(TransportErrorKind.BROKEN, "connection reset")),
            "slow": lambda answer: self._machine.at(self._machine.now + SLOW + trip, lambda: self._come(answer)),
        }
        if kind == "double":
            self._serve(_nobody)
        self._serve(replies.get(kind, self._answer))

    def _serve(self, reply: Callable[[HttpAnswer], None]) -> None:
        """Let the server do it; whoever asked may be gone by then, which a server does not notice."""
        call, server = self._call, self.server
        if call.path.startswith("/tasks/poll"):
            query = parse_qs(call.query)
            server.poll(int(query["count"][0]), int(query["timeout"][0]) / 1000, reply)
        elif call.path == "/tasks/update-v2":
            reply(server.update_v2(call.body or b""))
        else:
            reply(server.update(call.body or b""))

    def _answer(self, answer: HttpAnswer) -> None:
        self._machine.at(self._machine.now + self.server.plan.trip, lambda: self._come(answer))

    def _come(self, came: Any) -> None:
        if not self._over and self._came is None:
            self._came = came
            self._machine.wake(self._strand)


def _nobody(_: HttpAnswer) -> None:
    """The answer is lost."""
