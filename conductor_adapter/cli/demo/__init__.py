"""``conductor-adapter demo``: one worker on three servers, of which one hangs and one is killed and comes back."""

from conductor_adapter.cli.demo.telling import tell

__all__ = ["tell"]
