"""A worker's life: `lifecycle` decides, `threads` does."""

from conductor_adapter.running.lifecycle import RunnerConfig, ServerView, StopReport
from conductor_adapter.running.threads import WorkerRunner, run_workers

__all__ = ["RunnerConfig", "ServerView", "StopReport", "WorkerRunner", "run_workers"]
