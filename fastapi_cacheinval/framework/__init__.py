"""The framework layer: ASGI in, a decision, ASGI out."""
