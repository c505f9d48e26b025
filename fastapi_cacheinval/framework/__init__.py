"""The framework layer: ASGI in, a decision, ASGI out, and what FastAPI knows of each route."""
