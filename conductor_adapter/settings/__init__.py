"""Servers and how they are treated: from code, from the environment, from the command line, from a TOML file."""
