"""Delivery in virtual time: the real runner, its threads and its store on a virtual machine, while everything fails.

``machine``, ``primitives`` and ``possession`` run the program · ``plan``, ``draw`` what happens · ``server``,
``network`` the world around · ``worker`` what is killed · ``judge`` what must be true · ``play`` a run.
"""

from .draw import draw
from .plan import Schedule
from .play import Verdict, play

__all__ = ["Schedule", "Verdict", "draw", "play"]
