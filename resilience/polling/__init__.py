"""Many sources, one capacity: `planner` decides, `threads` does."""

from resilience.polling.items import Item
from resilience.polling.planner import PollPlanner
from resilience.polling.reasons import Explanation, Why
from resilience.polling.source import PollConfig, PollRequest, Source, SourceView
from resilience.polling.tally import Tally
from resilience.polling.threads import Poller

__all__ = [
    "Explanation",
    "Item",
    "PollConfig",
    "PollPlanner",
    "PollRequest",
    "Poller",
    "Source",
    "SourceView",
    "Tally",
    "Why",
]
