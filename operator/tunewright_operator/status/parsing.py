"""A ValidationError as one sentence: which field, and what is wrong with it."""

from pydantic import ValidationError


def explain(error: ValidationError) -> str:
    """`spec.a.b: what is wrong; spec.c: …`."""
    parts = (f"{'.'.join(('spec', *map(str, e['loc'])))}: {e['msg']}" for e in error.errors(include_url=False))
    return "; ".join(parts)[:4096]
