"""How the operator reaches the apiserver: KUBECONFIG where it is set, else the pod's service account."""

import os

from kubernetes.aio import config
from kubernetes.aio.client import Configuration


async def load_configuration() -> Configuration:
    """Address and credentials of the apiserver; raises kubernetes' ConfigException when there are none."""
    # Configuration() alone would return a copy of the process-wide default.
    configuration = type.__call__(Configuration)
    if os.environ.get("KUBECONFIG"):
        await config.load_kube_config(client_configuration=configuration)
    else:
        config.load_incluster_config(client_configuration=configuration)
    # Back-off is the reconcile loop's business; a client that retries by itself only hides the error.
    configuration.retries = None
    return configuration


async def bearer_token(configuration: Configuration) -> str | None:
    """The token to send, freshly read where it rotates; None where a client certificate is used."""
    header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return header.split(" ", 1)[-1].strip() if header else None
