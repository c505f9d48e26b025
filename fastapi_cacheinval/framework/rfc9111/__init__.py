"""Requests under `honour_headers`: looked up before routing, stored by what the responses' own headers say."""
