"""Many calls, one deadline: what is there by then is kept, what comes later is handed over.

``rounds`` decides (pure). On threads: ``threads`` is the front, ``session`` the machinery, ``workers`` the threads.
"""

from resilience.fan_out.rounds import Call, Places, Round
from resilience.fan_out.session import Session
from resilience.fan_out.threads import FanOutExecutor

__all__ = ["Call", "FanOutExecutor", "Places", "Round", "Session"]
