"""Running workers: `lifecycle` decides, `threads` executes, `signals` stops on a signal."""

from conductor_adapter.running.books import Books
from conductor_adapter.running.lifecycle import RunnerConfig, ServerView, StopReport
from conductor_adapter.running.signals import run_workers
from conductor_adapter.running.threads import WorkerRunner

__all__ = ["Books", "RunnerConfig", "ServerView", "StopReport", "WorkerRunner", "run_workers"]
