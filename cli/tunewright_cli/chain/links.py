"""Which job made which version, and which service serves it."""

from collections.abc import Mapping
from dataclasses import dataclass

from tunewright_cli.chain.model import Object


def carries(version: Object, alias: Mapping[str, str]) -> bool:
    """Whether a version has the alias that a service asks for."""
    spec = version["spec"]
    return spec.get("modelName") == alias["modelName"] and alias["name"] in (spec.get("aliases") or ())


@dataclass(frozen=True)
class Links:
    """The objects of one namespace, by name, and how they hang together."""

    jobs: Mapping[str, Object]
    versions: Mapping[str, Object]
    services: Mapping[str, Object]

    def version_of_job(self, job: Object) -> str:
        """Name of the version that the job registers, whether or not it is there."""
        registered = (job.get("status", {}).get("modelVersionRef") or {}).get("name")
        output = job["spec"]["output"]
        return str(registered or f"{output['modelName']}-{output['version']}")

    def versions_of_job(self, name: str) -> list[str]:
        """The version that a job makes."""
        return [self.version_of_job(self.jobs[name])] if name in self.jobs else []

    def job_of_version(self, name: str) -> str | None:
        """Name of the job that made a version; of one that is still at it, where the version is not there yet."""
        version = self.versions.get(name)
        if version is not None:
            reference = (version["spec"].get("lineage") or {}).get("jobRef") or {}
            return reference.get("name")
        for job_name, job in sorted(self.jobs.items()):
            if self.version_of_job(job) == name:
                return job_name
        return None

    def wanted_version(self, service: Object) -> str:
        """Name of the version that the spec asks for; empty while an alias leads nowhere, or to several."""
        model = service["spec"]["model"]
        if reference := model.get("versionRef"):
            return str(reference["name"])
        alias = model["alias"]
        carriers = [name for name, version in self.versions.items() if carries(version, alias)]
        return carriers[0] if len(carriers) == 1 else ""

    def versions_of_service(self, name: str) -> list[str]:
        """Versions that a service has to do with: stable, candidate, wanted, rejected, each once."""
        service = self.services[name]
        status = service.get("status", {})
        found = [(status.get(role) or {}).get("version") for role in ("stable", "candidate")]
        found += [self.wanted_version(service), (status.get("rejected") or {}).get("version")]
        return list(dict.fromkeys(version for version in found if version))

    def services_of_version(self, name: str) -> list[str]:
        """Services that have to do with a version, by name."""
        return [service for service in sorted(self.services) if name in self.versions_of_service(service)]

    def models_of_service(self, name: str) -> set[str]:
        """Models whose versions a service has to do with; that of a version that is gone by the version's name."""
        alias = self.services[name]["spec"]["model"].get("alias")
        found = {str(alias["modelName"])} if alias else set()
        for version in self.versions_of_service(name):
            record = self.versions.get(version)
            found.add(str(record["spec"]["modelName"]) if record else version.rpartition("-")[0])
        return found
