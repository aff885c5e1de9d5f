"""Pure builders of child manifests: `build_*(...) -> dict`."""
