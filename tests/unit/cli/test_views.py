"""Every screen, as people see it."""

from typing import Any

import pytest
from rich.console import Group

from tests import cli_objects as make
from tests.unit.cli.conftest import NOW, Snapshot, text_of
from tests.unit.cli.test_chain import everything
from tunewright_api.finetunejob_status import FineTuneJobStatus, JobStage, Restart
from tunewright_api.inferenceservice import AliasRef, InferenceServiceSpec, LastFailure, ServedModel
from tunewright_api.modelversion import Decision, ModelVersionStatus
from tunewright_api.rollout_status import Phase, Verdict
from tunewright_cli.chain import Objects, build_chain, find_focus
from tunewright_cli.forest import build_forest
from tunewright_cli.load.statistics import Sample, report
from tunewright_cli.views.bench import render_bench
from tunewright_cli.views.chain import render_chain
from tunewright_cli.views.forest import count, render_forest

Object = dict[str, Any]


def objects(*items: Object, pods: tuple[Object, ...] = ()) -> Objects:
    """Objects of any kind, sorted into their lists."""
    jobs, versions, services = (
        [item for item in items if item["kind"] == kind] for kind in ("FineTuneJob", "ModelVersion", "InferenceService")
    )
    return Objects.of(make.NAMESPACE, jobs, versions, services, pods)


def lost_job() -> FineTuneJobStatus:
    """A job that trains for the second time, after a pod was lost."""
    restart = Restart(
        attempt=1,
        time="2026-11-22T14:50:00Z",
        pod="guide-train-1-1",
        node="node-2",
        rank=1,
        exit_code=137,
        cause="OutOfMemory",
    )
    return make.training_job().model_copy(update={"restarts": [restart]})


def failed_job() -> FineTuneJobStatus:
    """A job that missed a gate."""
    message = "Loss is 0.9, and spec.evaluation.gates asks for at most 0.5"
    return make.training_job().model_copy(
        update={
            "conditions": make.conditions(
                Accepted="True",
                Trained="True:Succeeded",
                Evaluated=f"False:GateMissed:{message}",
                Failed=f"True:GateMissed:{message}",
                Stalled=f"True:GateMissed:{message}",
            ),
            "stage": JobStage.FAILED,
            "message": message,
            "evaluation": make.evaluation(),
            "completion_time": "2026-11-22T14:52:04Z",
        }
    )


def tampered() -> ModelVersionStatus:
    """A file was changed after the export."""
    message = "model/model.safetensors was changed after export: restore it, or register a new version"
    states = make.conditions(
        Verified=f"False:DigestMismatch:{message}", Ready="False:DigestMismatch", Stalled="True:DigestMismatch"
    )
    return ModelVersionStatus(observed_generation=1, conditions=states, message=message)


def starting() -> Object:
    """A candidate whose pods crash."""
    failure = LastFailure(
        pod="guide-c0ffee12-x",
        reason="InvalidConfig",
        exit_code=64,
        hint="vLLM refuses --max-model-len 100000. What to do: correct spec.engine",
    )
    status = make.rolling(weight=0, phase=Phase.STARTING, step=0, ready_replicas=0, checked_at=None)
    return make.service(
        spec=make.canary(), status=status.model_copy(update={"analysis": None, "last_failure": failure})
    )


def by_alias() -> Object:
    """A service that follows an alias."""
    spec = InferenceServiceSpec(model=ServedModel(alias=AliasRef(model_name="guide", name="production")))
    return make.service(spec=spec)


PODS = (
    make.pod("guide-9b6e7a66-a", revision=make.STABLE),
    make.pod("guide-9b6e7a66-b", revision=make.STABLE),
    make.pod("guide-c0ffee12-x", revision=make.CANDIDATE),
)
CRASHED = (make.pod("guide-c0ffee12-x", revision=make.CANDIDATE, status=make.crashing("vLLM refuses 100000")),)
MANY = tuple(make.pod(f"guide-9b6e7a66-{number}", revision=make.STABLE) for number in range(9))
VERSIONS = (
    make.job(),
    make.version(aliases=["production"]),
    make.job("guide-2", "v2"),
    make.version("v2", made_by="guide-2"),
)

CHAINS = {
    "chain-ready": ("guide", objects(make.job(), make.version(aliases=["production"]), make.service(), pods=PODS[:2])),
    "chain-canary": ("guide", objects(*VERSIONS, make.service(spec=make.canary(), status=make.rolling()), pods=PODS)),
    "chain-inconclusive": (
        "guide",
        objects(
            *VERSIONS,
            make.service(
                spec=make.canary(),
                status=make.rolling(inconclusive_checks=3, failed_checks=1).model_copy(
                    update={
                        "analysis": make.analysis(
                            Verdict.INCONCLUSIVE,
                            reason="TooFewRequests",
                            message="3 of 20 requests in the window",
                            requests=3,
                            metrics=[],
                            probes=None,
                        )
                    }
                ),
            ),
        ),
    ),
    "chain-rolled-back": (
        "guide",
        objects(*VERSIONS, make.service(spec=make.canary(), status=make.rolled_back()), pods=PODS[:2]),
    ),
    "chain-gate": (
        "guide",
        objects(
            *VERSIONS,
            make.service(spec=make.canary(manual_gates=[20]), status=make.rolling(phase=Phase.WAITING), name="guide"),
        ),
    ),
    "chain-promote": (
        "guide",
        objects(
            *VERSIONS,
            make.service(
                spec=make.canary(auto_promote=False), status=make.rolling(phase=Phase.WAITING, weight=50, step=3)
            ),
        ),
    ),
    "chain-paused": ("guide", objects(*VERSIONS, make.service(spec=make.canary(), status=make.rolling(paused=True)))),
    "chain-mirroring": (
        "guide",
        objects(
            *VERSIONS,
            make.service(
                spec=make.canary(mirror=True),
                status=make.rolling(phase=Phase.MIRRORING, weight=0, step=0, mirror_weight=100, checked_at=None),
            ),
        ),
    ),
    "chain-starting": ("guide", objects(*VERSIONS, starting(), pods=CRASHED)),
    "chain-alias": ("guide", objects(make.version(aliases=["production"]), by_alias())),
    "chain-training": (
        "guide",
        objects(
            make.job(status=make.training_job()),
            pods=(
                make.pod("guide-train-1-0", "FineTuneJob", stage="train"),
                make.pod("guide-train-1-1", "FineTuneJob", stage="train", status={"phase": "Pending"}),
            ),
        ),
    ),
    "chain-restarted": ("guide", objects(make.job(status=lost_job()))),
    "chain-failed-job": ("guide", objects(make.job(status=failed_job()))),
    "chain-undecided": ("guide-v1", objects(make.job(), make.version(decided=False))),
    "chain-tampered": ("guide-v1", objects(make.version(status=tampered(), made_by=None))),
    "chain-rejected": (
        "guide-v1",
        objects(
            make.version(
                approval=make.approved(make.DIGESTS["v1"], Decision.REJECTED, "it answers in German"), made_by=None
            )
        ),
    ),
    "chain-many-pods": ("guide", objects(make.version(), make.service(), pods=MANY)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_chain_as_a_tree(name: str, snapshot: Snapshot) -> None:
    asked, given = CHAINS[name]
    snapshot(name, render_chain(build_chain(find_focus(asked, given), given), NOW))


@pytest.mark.parametrize("name", ["chain-canary", "chain-many-pods"])
def test_the_chain_with_everything(name: str, snapshot: Snapshot) -> None:
    asked, given = CHAINS[name]
    snapshot(f"{name}-wide", render_chain(build_chain(find_focus(asked, given), given), NOW, wide=True))


def test_the_service_fits_on_a_small_terminal(snapshot: Snapshot) -> None:
    asked, given = CHAINS["chain-canary"]
    screen = render_chain(build_chain(find_focus(asked, given), given), NOW, short=True)
    snapshot("chain-canary-short", screen)
    assert len(text_of(screen).splitlines()) <= 24


def _rows(namespace: str = make.NAMESPACE) -> tuple[list[Object], list[Object], list[Object]]:
    given = everything()
    jobs, versions, services = (list(some.values()) for some in (given.jobs, given.versions, given.services))
    versions.append(make.version("v3", made_by=None, decided=False))
    services.append(make.service("lost", "guide-v9", make.rolled_back()))
    return jobs, versions, services


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("list", {}),
        ("list-wide", {"wide": True}),
        ("list-all-namespaces", {"namespaces": True}),
        ("list-narrow", {"width": 50}),
    ],
)
def test_the_list_of_everything(name: str, options: dict[str, Any], snapshot: Snapshot) -> None:
    jobs, versions, services = _rows()
    other = make.service("guide", namespace="shop")
    rows = build_forest(jobs, versions, [*services, *([other] if options.get("namespaces") else [])])
    lines = render_forest(rows, NOW, **{"width": 0, **options})
    snapshot(name, Group(*lines, count(rows)), width=200)


def test_a_thousand_lines_come_in_batches_and_none_is_lost() -> None:
    rows = build_forest([make.job(f"job-{number:04}", "v9") for number in range(1000)], [], [])
    first, *batches = render_forest(rows, NOW, width=0)
    assert first.plain.split() == ["NAME", "STATE", "AGE", "DETAIL"]
    assert len(batches[0].plain.splitlines()) == 50
    told = [line.split()[1] for batch in batches for line in batch.plain.splitlines()]
    assert told == [f"ftj/job-{number:04}" for number in range(1000)]


def test_what_a_status_says_is_printed_as_it_is() -> None:
    status = make.serving().model_copy(update={"message": "[red]oops[/red] :smile: {x}"})
    given = objects(make.version(), make.service(status=status))
    told = text_of(render_chain(build_chain(find_focus("tis/guide", given), given), NOW))
    assert "[red]oops[/red] :smile: {x}" in told


def test_the_figures_of_a_load(snapshot: Snapshot) -> None:
    samples = [Sample(number / 10, number / 10 + 0.1 + number / 1000, number / 10 + 1.5, 48) for number in range(40)]
    samples += [Sample(4.0, None, 4.1, 0, "the server answered 503: loading")] * 2
    snapshot("bench", render_bench("revision 9b6e7a66 of guide (2 pods)", report(samples, 8)))
