"""Small async clients of the other parts, each with a timeout."""
