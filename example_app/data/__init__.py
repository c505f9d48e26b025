"""The published rows the shop sells; SOURCE.md says where they come from."""
