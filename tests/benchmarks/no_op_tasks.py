"""What the command line runs for `bench_cpu`."""

from conductor_adapter import worker


@worker("bench")
def work() -> None:
    """Do nothing."""
