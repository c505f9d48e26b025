"""Random requests and random apps, each asked with the cache and without it: any difference is a fault."""
