"""A process with a relay and an outbox, for tests of several of them: told what to do on its standard input.

``python outbox_worker.py OUTBOX FOLDER CLAIM_FOR NAME``: its destination is down while ``FOLDER/down`` exists, and
notes in ``FOLDER/sent`` when each send begins and ends. Answers are JSON, one a line.
"""

import json
import os
import sys
from pathlib import Path

import attrs

from resilience import Destination, Outbox, Relay, RelayConfig

CONFIG = RelayConfig(inline_timeout=0.5, retry_initial=0.01, retry_maximum=0.1)


def main(path: str, folder: str, claim_for: str, name: str) -> None:
    """Do what is said until the input ends."""
    down, sent = Path(folder, "down"), os.open(Path(folder, "sent"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(what: str, payload: object) -> None:
        os.write(sent, f"{json.dumps([what, payload, name])}\n".encode())

    def send(payload: object, _timeout: float) -> None:
        if down.exists():
            raise ConnectionError("down")
        note("begins", payload)
        note("ends", payload)

    outbox = Outbox(path, claim_for=float(claim_for))
    destination = Destination("eu", send, "http://eu", bounded=True)
    with outbox, Relay([destination], config=CONFIG, store=outbox) as relay:
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "put":
                for number in range(int(arguments[0])):
                    relay.hand_over("eu", f"k{number % 7}", [name, number])
            if command == "close":
                relay.close(float(arguments[0]))
            sys.stdout.write(json.dumps(attrs.asdict(relay.view()["eu"])) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
