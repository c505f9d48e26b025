"""`cacheinval`, the command line: what replicas do, what is wrong with a Redis or an app, and purges by hand."""
