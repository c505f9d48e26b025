"""Real replicas, a real Valkey, real faults, and a checker over what clients saw: `python -m chaos`."""
