"""`make demo`: the quickstart on a real cluster, told step by step."""
