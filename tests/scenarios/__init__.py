"""The scenarios that the poller's rules were made for: each runs a simulation and says what came of it.

``row`` what a scenario says · ``worlds`` what they are made of · ``healthy``, ``idle``, ``slow``, ``ill`` the scenarios
by what is special about the sources.
"""

from . import healthy, idle, ill, slow
from .row import Row, Scenario

ALL: dict[str, Scenario] = {**idle.SCENARIOS, **healthy.SCENARIOS, **slow.SCENARIOS, **ill.SCENARIOS}

__all__ = ["ALL", "Row", "Scenario"]
