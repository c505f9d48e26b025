"""The one place that makes Redis clients, and that translates what they raise."""
