"""Small Protocols between the engine and what it runs on; each docstring is the contract."""
