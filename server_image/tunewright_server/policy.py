"""The access rules of a server pod: which (method, path) pairs exist on the port of the API. Pure.

vLLM's own server has some thirty more endpoints: other ways to ask the model, ways to look inside it, ways to change or
stop it. Its API key guards only some of them, so the rules are ours, and what is not listed does not exist.
"""

import hashlib
import json
from collections.abc import Iterable

VERSION = 2
POLICY_PATH = "/tunewright/policy"

# Ask the model; these are what is counted as requests.
QUESTIONS = frozenset({("POST", "/v1/chat/completions"), ("POST", "/v1/completions")})
PUBLIC = QUESTIONS | {("GET", "/v1/models")}
# For the pod's own supervisor, which knows a key: a gateway leads to the same port, and what a server does is nobody's
# business there. Prometheus and the kubelet ask the supervisor.
OWN = frozenset({("GET", "/health"), ("GET", "/metrics"), ("GET", POLICY_PATH)})
KEY_HEADER = "x-tunewright-key"
KEY_VARIABLE = "TUNEWRIGHT_SUPERVISOR_KEY"


def describe() -> list[str]:
    """`METHOD /path` of everything that exists for clients, sorted."""
    return _lines(PUBLIC)


def digest() -> str:
    """sha256 of the canonical rules: two servers with the same digest let the same requests through."""
    rules = {"version": VERSION, "allow": describe(), "own": _lines(OWN), "else": 404}
    text = json.dumps(rules, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _lines(rules: Iterable[tuple[str, str]]) -> list[str]:
    return sorted(f"{method} {path}" for method, path in rules)
