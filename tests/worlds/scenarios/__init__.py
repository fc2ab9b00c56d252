"""The scenarios that the poller's rules were made for: each runs a simulation and says what came of it.

``row`` what a scenario says · ``worlds`` what they are made of · ``healthy``, ``idle``, ``slow``, ``ill`` the scenarios
by what is special about the sources · ``chained`` units that go on without a poll · ``random_ones`` everything at once.
"""

from . import chained, healthy, idle, ill, random_ones, slow
from .row import Row, Scenario

MADE: dict[str, Scenario] = {**idle.SCENARIOS, **healthy.SCENARIOS, **slow.SCENARIOS, **ill.SCENARIOS}
CHAINED: dict[str, Scenario] = chained.SCENARIOS
ALL: dict[str, Scenario] = {**MADE, **CHAINED, **random_ones.SCENARIOS}

__all__ = ["ALL", "CHAINED", "MADE", "Row", "Scenario"]
