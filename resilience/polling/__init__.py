"""Many sources, one capacity: `planner` decides, `threads` does."""

from resilience.polling.planner import PollPlanner
from resilience.polling.source import PollConfig, PollRequest, Source
from resilience.polling.threads import Item, Poller

__all__ = ["Item", "PollConfig", "PollPlanner", "PollRequest", "Poller", "Source"]
