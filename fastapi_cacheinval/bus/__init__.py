"""Drivers of the purge log."""
