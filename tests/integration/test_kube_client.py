"""The operator's client on a real apiserver: what is ours is changed, what is not stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.aio import config as kubeconfig
from kubernetes.aio.client import ApiClient, Configuration

from e2e.cluster.apiserver import ControlPlane
from tunewright_operator.kube.client import KubeClient
from tunewright_operator.kube.errors import AlreadyExists, Conflict

Object = dict[str, Any]


def config_map(**data: str) -> Object:
    """A ConfigMap with this data."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "client-test", "namespace": "default"},
        "data": data,
    }


def of(uid: str, manifest: Object) -> Object:
    """The manifest, for this object only."""
    return manifest | {"metadata": manifest["metadata"] | {"uid": uid}}


async def connect(plane: ControlPlane) -> KubeClient:
    """A client with the administrator's rights."""
    configuration = Configuration()
    await kubeconfig.load_kube_config(str(plane.kubeconfig), client_configuration=configuration)
    return KubeClient(ApiClient(configuration))


async def test_create_takes_over_nothing_and_apply_removes_what_is_left_out(apiserver: ControlPlane) -> None:
    kube = await connect(apiserver)
    try:
        assert await kube.look(config_map()) is None
        created = await kube.create(config_map(a="1", b="1"))
        uid = created["metadata"]["uid"]
        with pytest.raises(AlreadyExists):
            await kube.create(config_map(a="2"))
        with pytest.raises(Conflict):
            await kube.apply(of("of-another-object", config_map(a="2")))
        assert (await kube.look(config_map()) or {})["data"] == {"a": "1", "b": "1"}
        for data in ({"a": "2"}, {"c": "3"}):
            assert (await kube.apply(of(uid, config_map(**data))))["data"] == data
    finally:
        await kube.delete(config_map())
        await kube.close()
