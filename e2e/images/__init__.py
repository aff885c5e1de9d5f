"""The images of the operator, the trainer and the server, and the demo's model, made on this machine.

`image_refs()` gives the names to write into manifests; `python -m e2e.images build` makes them.
"""

from e2e.images.refs import image_refs

__all__ = ["image_refs"]
