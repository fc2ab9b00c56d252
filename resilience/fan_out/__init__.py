"""Many calls, one deadline: what is there by then is kept, what comes later is handed over.

``calls`` decides (pure). On threads: ``threads`` is the front, ``pool`` the threads.
"""

from resilience.fan_out.threads import FanOutExecutor, Session

__all__ = ["FanOutExecutor", "Session"]
