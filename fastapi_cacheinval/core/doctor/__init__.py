"""Whether a Redis and the replicas on it are as they should be: rules over what was found."""
