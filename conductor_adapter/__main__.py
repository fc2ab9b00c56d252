"""``python -m conductor_adapter`` is ``conductor-adapter``."""

from conductor_adapter.cli import main

main()
