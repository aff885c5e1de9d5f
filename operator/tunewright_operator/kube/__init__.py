"""The Kubernetes API behind a small protocol."""
