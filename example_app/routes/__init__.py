"""The routes of the shop, one module per subject."""
