"""What a Gateway says about the HTTPRoute of a service."""

from collections.abc import Iterable
from typing import Any

Manifest = dict[str, Any]


def find_refusal(routes: Iterable[Manifest]) -> str | None:
    """Why a Gateway does not take a route, in its own words. None as well while it has said nothing about the route as
    it is now."""
    for route in routes:
        generation = route["metadata"].get("generation")
        for parent in (route.get("status") or {}).get("parents") or ():
            for condition in parent.get("conditions") or ():
                current = condition.get("observedGeneration", generation) == generation
                if condition["type"] == "Accepted" and condition["status"] == "False" and current:
                    return f"Gateway {_name(parent)} does not take the HTTPRoute: {condition.get('message', '')}"
    return None


def _name(parent: Manifest) -> str:
    reference = parent.get("parentRef") or {}
    return "/".join(part for part in (reference.get("namespace"), reference.get("name")) if part)
