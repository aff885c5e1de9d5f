"""The demo's command line: `python -m e2e.demo run|canary|page|down`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError

import typer
from rich.console import Console

from e2e.cluster.backends import select
from e2e.cluster.errors import ClusterError
from e2e.cluster.local import LocalCluster
from e2e.cluster.mesh import Mesh
from e2e.demo import canary, page, quickstart, target, view
from e2e.demo.kubectl import Kubectl, KubectlError
from e2e.demo.load import summarize
from e2e.demo.preparation import run_side_by_side
from e2e.demo.timeline import Timeline
from e2e.images.common import ImageBuildError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="From three YAML objects to an answer, on a real Kubernetes (CLUSTER=local|kubeconfig|kind).",
)
# A log has no width: only a terminal wraps lines.
console = Console(highlight=False, soft_wrap=True)
JOB, VERSION, SERVICE = "guide", "guide-v1", "guide"


class Clock:
    """Seconds of each step, in order."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Tell and time one step."""
        console.print(f"\n[bold cyan]▶ {title}[/bold cyan]")
        started = time.monotonic()
        yield
        self.seconds.append((title, time.monotonic() - started))


@app.command()
def run() -> None:
    """Run the whole quickstart and leave the cluster up."""
    clock = Clock()
    with clock.step("Cluster and images"):
        run_side_by_side(console, target.preparation())
    kubectl = Kubectl(select().kubeconfig())
    images = target.images()
    with clock.step("Load the images"):
        target.load_images()
    from_dataset_to_answer(clock, kubectl, images)
    epilogue(kubectl, clock)


def from_dataset_to_answer(clock: Clock, kubectl: Kubectl, images: dict[str, str]) -> None:
    """The quickstart on a cluster that has the images."""
    with clock.step("Install Tunewright with Helm"):
        quickstart.leftovers(kubectl)
        quickstart.install(kubectl, images)
        console.print(kubectl.run("get", "pods", "-n", quickstart.OPERATOR_NAMESPACE).rstrip())
    with clock.step("Upload base model and dataset"):
        quickstart.upload(kubectl, images["trainer"], quickstart.inputs())
    with clock.step("Train, evaluate and export on two pods"):
        quickstart.submit(kubectl)
        job = watch_job(kubectl, JOB)
        console.print(view.evaluation_table(job))
    with clock.step("Verify and approve the version"):
        version = quickstart.verified_version(kubectl, VERSION)
        refusal = quickstart.approve(kubectl, version)
        console.print(f"{quickstart.DEVELOPER} tried to approve and was refused:\n  [dim]{refusal}[/dim]")
        console.print(f"{quickstart.APPROVER} approved {version['spec']['artifact']['digest'][:19]}…")
    with clock.step("Serve with vLLM"):
        service = quickstart.ready_service(kubectl, SERVICE)
        console.print(f"InferenceService {SERVICE} is Ready at {service['status']['url']}")
    with clock.step("Ask both models"):
        prompts = [question.prompt for question in quickstart.read_questions()]
        samples = {sample["prompt"]: sample["base"] for sample in job["status"]["samples"]}
        tuned = quickstart.ask(kubectl, SERVICE, prompts)
        console.print(view.answers(prompts, [samples[prompt] for prompt in prompts], tuned))


def watch_job(kubectl: Kubectl, name: str) -> quickstart.Object:
    """Follow the job with a progress bar; without a terminal, a line for each new state."""
    with view.job_bar() if console.is_terminal else contextlib.nullcontext() as bar:
        task = bar.add_task("Pending", total=1, detail="") if bar else None
        told: tuple[str, int] = ("", -1)

        def seen(job: quickstart.Object) -> None:
            nonlocal told
            if bar and task is not None:
                bar.update(task, **view.job_fields(job))
                return
            mark = view.milestone(job)
            if mark != told:
                console.print(view.job_line(job))
                told = mark

        return quickstart.follow_job(kubectl, name, seen)


def epilogue(kubectl: Kubectl, clock: Clock) -> None:
    """Tables of objects and times, and what to type next."""
    console.print(kubectl.run("get", "ftj,mv,tis", "-n", quickstart.NAMESPACE).rstrip())
    console.print()
    console.print(view.time_table(clock.seconds))
    console.print(
        "\nThe cluster is still up. Next:\n"
        f"  export KUBECONFIG={kubectl.kubeconfig}\n"
        f"  kubectl -n {quickstart.NAMESPACE} get ftj,mv,tis -o wide\n"
        f"  kubectl -n {quickstart.NAMESPACE} describe ftj {JOB}\n"
        f"  kubectl explain finetunejob.spec --recursive\n"
        f"  kubectl -n {quickstart.NAMESPACE} port-forward service/{SERVICE} 8000:80\n"
        "  make demo-canary\n"
        "  make demo-down"
    )


@app.command(name="canary")
def canary_demo() -> None:
    """Promote a better version step by step under load, then see a worse one undone. Starts with `run` if needed."""
    clock = Clock()
    with clock.step("Cluster, Istio, Prometheus and images"):
        run_side_by_side(console, target.preparation(mesh=True))
        target.load_images()
    kubectl = Kubectl(select().kubeconfig())
    images = target.images()
    if not canary.is_served(kubectl):
        from_dataset_to_answer(clock, kubectl, images)
    mesh = LocalCluster().mesh
    with clock.step("Put the service behind Istio"):
        canary.install(kubectl, images)
        canary.watch(kubectl, mesh)
        canary.start_over(kubectl, images["server"])
        canary.move_alias(kubectl, canary.FIRST)
        canary.join_mesh(kubectl, mesh)
        console.print(f"{canary.FIRST} answers at {mesh.gateway_url} as {canary.host()}")
    with clock.step("Version 2 goes on from version 1"):
        make_version(kubectl, canary.BETTER)
    with clock.step("Version 2 is promoted, while people ask"):
        roll_out(kubectl, mesh, canary.BETTER, "promoted")
    with clock.step("Version 3 learns nothing"):
        make_version(kubectl, canary.WORSE)
    with clock.step("Version 3 is rolled back, while people ask"):
        roll_out(kubectl, mesh, canary.WORSE, "rolled back")
    canary_epilogue(kubectl, mesh, clock)


@app.command(name="page")
def write_page(path: Path) -> None:
    """Write what kubectl shows of the demo's objects, for the documentation. Needs the cluster that `canary` leaves."""
    kubectl = Kubectl(select().kubeconfig())
    seen = page.sights(quickstart.NAMESPACE, JOB, canary.BETTER, SERVICE)
    path.write_text(page.page(kubectl, seen))


def make_version(kubectl: Kubectl, version: str) -> None:
    """Train and approve a version; one of an earlier run is taken as it is."""
    job = canary.train(kubectl, version, lambda name: watch_job(kubectl, name))
    base = canary.FIRST if version == canary.BETTER else "base"
    console.print(view.evaluation_table(job, base) if job else f"{version} was trained before")
    console.print(f"{quickstart.APPROVER} approved {version}: {canary.approve(kubectl, version)[:19]}…")


def roll_out(kubectl: Kubectl, mesh: Mesh, version: str, expected: str) -> None:
    """Move the alias and tell what the operator does, under load; DemoError when it ends in another way."""
    timeline = Timeline()
    timeline.see(canary.service(kubectl))

    def tell(service: quickstart.Object) -> None:
        for entry in timeline.see(service):
            console.print(entry.line, markup=False)

    with canary.load(mesh) as load:
        canary.move_alias(kubectl, version)
        service = canary.follow_rollout(kubectl, version, tell)
        canary.wait_retired(kubectl)
    ended = canary.outcome(service, version)
    console.print(f"{version} was {ended}. {view.load_line(summarize(load.exchanges))}")
    if ended != expected:
        raise quickstart.DemoError(f"{version} was {ended}, and should have been {expected}")


def canary_epilogue(kubectl: Kubectl, mesh: Mesh, clock: Clock) -> None:
    """Who answered, the state, the times, and what to type next."""
    answered = canary.requests_by_version(mesh)
    console.print("Answered, as Prometheus counted: " + ", ".join(f"{n} by {one}" for one, n in answered.items()))
    console.print()
    console.print(kubectl.run("get", "tis", "-o", "wide", "-n", quickstart.NAMESPACE).rstrip())
    console.print()
    console.print(view.time_table(clock.seconds))
    console.print(
        "\nThe cluster is still up. Next:\n"
        f"  export KUBECONFIG={kubectl.kubeconfig}\n"
        "  python3 -m venv ~/.tunewright && ~/.tunewright/bin/pip install --quiet '.\\[cli]'\n"
        "  export PATH=~/.tunewright/bin:$PATH\n"
        f"  tunewright get tis/{SERVICE} -n {quickstart.NAMESPACE}\n"
        f"  tunewright why tis/{SERVICE} -n {quickstart.NAMESPACE}\n"
        f"  kubectl -n {quickstart.NAMESPACE} get tis,mv -o wide\n"
        f"  kubectl -n {quickstart.NAMESPACE} get virtualservice {SERVICE} -o yaml\n"
        f"  curl -s {mesh.gateway_url}/v1/models -H 'Host: {canary.host()}'\n"
        "  make demo-down"
    )


@app.command()
def down() -> None:
    """Remove the cluster. A cluster that was given by KUBECONFIG stays, without Tunewright in it."""
    if target.kind_of_cluster() == "kubeconfig":
        quickstart.uninstall(Kubectl(select().kubeconfig()))
        return
    run_side_by_side(console, {"cluster": [["e2e.cluster", "down"]]})


def main() -> None:
    """Run the command line; a failure is one sentence with its cause, and exit status 1."""
    try:
        app()
    except (
        quickstart.DemoError,
        KubectlError,
        ClusterError,
        ImageBuildError,
        CalledProcessError,
        OSError,
        ValueError,
    ) as error:
        console.print(f"\n[red]The demo stopped:[/red] {error}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
