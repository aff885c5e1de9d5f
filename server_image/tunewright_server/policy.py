"""The access rules of a server pod: which (method, path) pairs exist on the port of the API. Pure.

vLLM's own server has some thirty more endpoints: other ways to ask the model, ways to look inside it, ways to change or
stop it. Its API key guards only some of them, so the rules are ours, and what is not listed does not exist.
"""

import hashlib
import json

VERSION = 1
POLICY_PATH = "/tunewright/policy"

# Ask the model; these are what is counted as requests.
QUESTIONS = frozenset({("POST", "/v1/chat/completions"), ("POST", "/v1/completions")})
ALLOWED = QUESTIONS | {
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", POLICY_PATH),
}


def describe() -> list[str]:
    """`METHOD /path` of everything that exists, sorted."""
    return sorted(f"{method} {path}" for method, path in ALLOWED)


def digest() -> str:
    """sha256 of the canonical rules: two servers with the same digest let the same requests through."""
    rules = {"version": VERSION, "allow": describe(), "else": 404}
    text = json.dumps(rules, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
