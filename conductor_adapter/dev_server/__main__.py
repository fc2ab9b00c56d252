"""``python -m conductor_adapter.dev_server``: the server in the foreground."""

import argparse
import sys

from .serve import serve


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, serve, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m conductor_adapter.dev_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 picks a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--control-port", type=int, help="a second port for /dev only; 0 picks a free one")
    parser.add_argument("--state", metavar="FILE", help="keep the state there (default: in memory)")
    parser.add_argument("--seed-tasks", metavar="TYPE=N", action="append", default=[], type=_seed)
    parser.add_argument("--faults", default="", help='for example "latency=1,only=polls" or "hang"')
    parser.add_argument("--payload-threshold", type=int, metavar="BYTES", help="store larger payloads outside")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    return serve(
        options.port,
        host=options.host,
        control_port=options.control_port,
        state=options.state,
        seed=dict(options.seed_tasks),
        faults=options.faults,
        payload_threshold=options.payload_threshold,
        with_parent=options.with_parent,
    )


def _seed(text: str) -> tuple[str, int]:
    task_type, _, count = text.partition("=")
    if not task_type or not count.isdecimal():
        raise argparse.ArgumentTypeError(f"write TYPE=N, for example greet=100, not {text!r}")
    return task_type, int(count)


if __name__ == "__main__":
    sys.exit(main())
