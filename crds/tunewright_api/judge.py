"""The endpoint that judges answers, in evaluation and in a rollout's probes."""

from typing import Annotated

from pydantic import Field, StringConstraints

from tunewright_api.base import LocalObjectRef, Model


class JudgeEndpoint(Model):
    """A model behind OpenAI's API, and the key for it."""

    url: Annotated[str, StringConstraints(max_length=1024, pattern=r"^https?://[^\s]+$")] = Field(
        description="Base URL that ends before /chat/completions, such as http://judge.tools/v1."
    )
    model: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(description="Model of the requests.")
    secret_ref: LocalObjectRef | None = Field(
        default=None,
        description="Secret of this namespace whose key API_KEY is sent as bearer token; its label "
        'tunewright.io/judge: "true" allows that.',
    )
