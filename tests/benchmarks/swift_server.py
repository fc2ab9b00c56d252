"""A server that answers polls and updates at once and keeps nothing: ``python swift_server.py``, which prints its port.

It always has tasks, and hands the next one out with the answer to update-v2. It costs a tenth of what the embedded
server costs for each call, so that it is not what holds a worker up; it knows nothing of workflows.
"""

import asyncio
import json
import re
import sys

__all__ = ["main"]

TASK = {
    "taskType": "bench", "status": "IN_PROGRESS", "inputData": {}, "referenceTaskName": "bench", "retryCount": 0,
    "seq": 1, "pollCount": 1, "taskDefName": "bench", "scheduledTime": 1764000000000, "startTime": 1764000000001,
    "endTime": 0, "updateTime": 1764000000001, "startDelayInSeconds": 0, "retried": False, "executed": False,
    "callbackFromWorker": True, "responseTimeoutSeconds": 3600, "workflowType": "bench", "callbackAfterSeconds": 0,
    "outputData": {}, "workflowTask": {"name": "bench", "taskReferenceName": "bench", "type": "SIMPLE"},
    "rateLimitPerFrequency": 0, "rateLimitFrequencyInSeconds": 0, "workflowPriority": 0, "iteration": 0,
}  # fmt: skip
BODY = json.dumps(TASK)[:-1].encode() + b', "workflowInstanceId": "workflow-%d", "taskId": "task-%d"}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nDate: Mon, 30 Nov 2026 08:00:00 GMT\r\nContent-Length: %d\r\n\r\n"
COUNT = re.compile(rb"[?&]count=(\d+)")
TASK_ID = re.compile(rb'"taskId": ?"([^"]*)"')


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other, pipelined or not."""

    handed_out = updates = 0

    def connection_made(self, transport):
        self.transport, self.got = transport, b""

    def data_received(self, data):
        self.got += data
        while (end := self.got.find(b"\r\n\r\n")) >= 0:
            head = self.got[:end]
            found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self.got) < whole:
                return
            body, self.got = self.got[end + 4 : whole], self.got[whole:]
            kind, answer = self.answer(head.split(b"\r\n", 1)[0], body)
            self.transport.write(HEAD % (kind, len(answer)) + answer)

    def answer(self, line, body):
        """Content type and body of the answer."""
        if b"/poll/batch/" in line:
            count = int(COUNT.search(line)[1])
            return b"application/json", b"[" + b",".join(self.task() for _ in range(count)) + b"]"
        if b"/counts" in line:
            counts = {"updates": Connection.updates, "handed out": Connection.handed_out}
            return b"application/json", json.dumps(counts).encode()
        if b"/tasks" not in line or not line.startswith(b"POST"):
            return b"application/json", b"{}"
        Connection.updates += 1
        if b"/update-v2" in line:
            return b"application/json", self.task()
        return b"text/plain", TASK_ID.search(body)[1]

    def task(self):
        Connection.handed_out += 1
        return BODY % (Connection.handed_out, Connection.handed_out)


async def main():
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
