"""A deterministic simulation of the purge log and its replicas: `python -m simulation` runs seeds of it."""
