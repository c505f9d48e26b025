"""The public HTTP caching test suite against a transparent reverse proxy, with the middleware in front or without."""
