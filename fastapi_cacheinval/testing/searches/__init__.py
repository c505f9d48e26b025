"""Searches that run beside the tests of an app: leaks, missing tags, and pages that a mutation left standing."""
