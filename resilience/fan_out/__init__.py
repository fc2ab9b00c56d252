"""Many calls, one deadline: outcomes by then are returned, later ones are passed on.

``calls`` decides (pure). On threads: ``threads`` is the driver, ``pool`` manages the threads.
"""

from resilience.fan_out.threads import FanOutExecutor, Session

__all__ = ["FanOutExecutor", "Session"]
