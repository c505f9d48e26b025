"""Measurements: `python -m bench` runs all of them and prints Markdown tables."""
