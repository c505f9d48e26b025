"""Pure decisions over frozen values: no clock, no randomness, no I/O, no framework."""
