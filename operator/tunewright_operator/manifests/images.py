"""What builders need to know about the images; OperatorConfig has these attributes."""

from typing import Protocol


class Images(Protocol):
    """References of our images and how the kubelet pulls them."""

    @property
    def trainer_image(self) -> str:
        """Image of every stage of a job and of the verification of a ModelVersion."""

    @property
    def server_image(self) -> str:
        """Image of the server."""

    @property
    def image_pull_policy(self) -> str:
        """Always, IfNotPresent or Never."""
