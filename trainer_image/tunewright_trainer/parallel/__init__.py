"""How several processes share the work."""
