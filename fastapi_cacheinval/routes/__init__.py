"""What FastAPI's dependency tree says about a route; needs neither cache nor engine."""
