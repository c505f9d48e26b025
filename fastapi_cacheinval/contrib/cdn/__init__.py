"""Purges that go out to a CDN, and what it is told of responses."""
