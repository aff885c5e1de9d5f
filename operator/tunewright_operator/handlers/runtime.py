"""The operator process: wait for the CRDs, serve probes, run kopf until a signal ends it."""

import asyncio
import logging

import kopf
from kopf._cogs.structs.references import Insights  # what kopf has found; it has no public name

from tunewright_operator.config import OperatorConfig
from tunewright_operator.handlers.kinds import KINDS
from tunewright_operator.handlers.registry import CHILDREN, build_registry, build_settings
from tunewright_operator.health import serve
from tunewright_operator.kube.client import KubeClient
from tunewright_operator.kube.errors import KubeError
from tunewright_operator.metrics import Metrics

CRD_POLL_SECONDS = 1.0

logger = logging.getLogger(__name__)


async def run(config: OperatorConfig) -> None:
    """Run until SIGTERM or SIGINT."""
    kube = await KubeClient.connect()
    insights = Insights()
    try:
        async with serve(config.port, lambda: watches_all(insights)):
            await wait_for_crds(kube)
            logger.info("starting", extra={"fields": {"namespaces": config.watch_namespaces or "all"}})
            await kopf.operator(
                registry=build_registry(kube, config, Metrics()),
                settings=build_settings(),
                insights=insights,
                standalone=True,
                clusterwide=not config.watch_namespaces,
                namespaces=config.watch_namespaces,
            )
    finally:
        await kube.close()


async def wait_for_crds(kube: KubeClient) -> None:
    """kopf looks for its resources once, at its start: they must be there by then."""
    wanted = {kind.kind for kind in KINDS}
    while True:
        try:
            if not (missing := wanted - await kube.served_kinds()):
                return
            logger.warning("waiting for the CustomResourceDefinitions of %s", ", ".join(sorted(missing)))
        except KubeError as error:
            logger.warning("waiting for the apiserver: %s", error)
        await asyncio.sleep(CRD_POLL_SECONDS)


def watches_all(insights: Insights) -> bool:
    """Whether every kind is watched. A loop starts only after kopf has listed all kinds: none sees half a cache."""
    wanted = {plural for _, _, plural in CHILDREN} | {kind.plural for kind in KINDS}
    return wanted <= {resource.plural for resource in insights.watched_resources}
