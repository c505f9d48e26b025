"""Processes that tests start: a Valkey server, and servers of an app; each ends with the test, however that goes."""
