"""Requests to a model server: one answer as it comes, or many at once and how fast they were."""
