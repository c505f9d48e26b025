"""Tiers, collapsing, refreshing and purging: asyncio, no framework."""
