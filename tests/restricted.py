"""Pod Security `restricted`, as a pure check of a pod's spec.

Source: kubernetes.io/docs/concepts/security/pod-security-standards, the profile of 1.34, without its Windows rules.
"""

from typing import Any

Object = dict[str, Any]

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(spec: Object) -> list[str]:
    """Everything that the profile forbids in this pod."""
    found = [f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    for volume in spec.get("volumes", ()):
        found += [f"volume {volume['name']} is a {kind}" for kind in volume.keys() - {"name"} - _VOLUMES]
    pod = spec.get("securityContext", {})
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        found += [f"{container['name']}: {text}" for text in _container(pod, container)]
    return found


def _container(pod: Object, container: Object) -> list[str]:
    own = container.get("securityContext", {})
    merged = pod | own
    checks = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is False,
        "runAsNonRoot is not true": merged.get("runAsNonRoot") is True,
        "runAsUser is 0": merged.get("runAsUser") != 0,
        "capabilities are not dropped": own.get("capabilities", {}).get("drop") == ["ALL"],
        "capabilities are added": set(own.get("capabilities", {}).get("add", ())) <= {"NET_BIND_SERVICE"},
        "no seccomp profile": merged.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
        "a host port": not any(port.get("hostPort") for port in container.get("ports", ())),
        "sysctls or SELinux options": not (pod.get("sysctls") or merged.get("seLinuxOptions")),
    }
    return [text for text, passed in checks.items() if not passed]
