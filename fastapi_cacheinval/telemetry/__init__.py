"""What listens to the engine."""
