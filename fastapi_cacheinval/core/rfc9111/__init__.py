"""The rules of a shared cache that response headers steer (RFC 9111): pure, one concept in each file."""
