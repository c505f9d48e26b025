"""Parse and serialise pairs of HTTP header fields: pure, tolerant of clients, linear in time."""
