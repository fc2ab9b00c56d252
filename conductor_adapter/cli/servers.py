"""The servers that a command connects to: named by options, in a file, or in the environment."""

from collections.abc import Sequence
from pathlib import Path

from conductor_adapter.settings.loading import (
    servers_from_env,
    servers_from_options,
    servers_from_toml,
    unread_credentials,
)
from conductor_adapter.settings.server_settings import ServerSettings

__all__ = ["credentials_hint", "find_servers"]


def find_servers(options: Sequence[str], config: Path | None) -> tuple[ServerSettings, ...]:
    """The servers of ``--server``, else of ``--config``, else of the environment.

    Raises:
        ValueError: there are no servers, one is invalid, or both options were given.
    """
    if options and config is not None:
        raise ValueError(f"--server and --config {config} both name servers: use only one of them")
    if options:
        return servers_from_options(options)
    if config is not None:
        return servers_from_toml(config)
    return servers_from_env()


def credentials_hint(options: Sequence[str], config: Path | None, servers: Sequence[ServerSettings]) -> str | None:
    """A hint about credentials in the environment that none of these servers reads, if they might be meant for one."""
    return unread_credentials(servers) if options or config is not None else None
