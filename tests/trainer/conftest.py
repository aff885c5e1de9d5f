"""Fixtures of the trainer's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.support import Job, make_job, real_model, write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers over bytes."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def smollm() -> Path:
    """The real small model."""
    path = real_model()
    if not path.is_dir():
        pytest.skip("the real model is not in the cache: run python -m e2e.images model")
    return path


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> Callable[..., Job]:
    """Make a job on the tiny model."""
    return lambda name="job", **overrides: make_job(tmp_path / name, tiny_model, **overrides)
