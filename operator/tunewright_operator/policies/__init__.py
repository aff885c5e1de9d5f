"""One pure rule per file; `now` is always an argument."""
