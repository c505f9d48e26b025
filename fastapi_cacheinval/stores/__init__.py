"""Adapters of three ports: the store of L1, the store of L2, and the roll of the replicas."""
