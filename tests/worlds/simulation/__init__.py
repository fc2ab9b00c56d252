"""Discrete events in virtual time that drive the real planner, breakers and relay schedule: no threads, no sleeping.

``sources`` what is polled, as values · ``world`` time, and the loop that drives the planner · ``polls`` one poll on its
way · ``results`` how results get home · ``chains`` results whose answer brings the next item. ``delivery`` is a room of
its own: the whole worker, its threads and its outbox.
"""

from .sources import NEVER, Job, Simulated
from .world import Simulation

__all__ = ["NEVER", "Job", "Simulated", "Simulation"]
