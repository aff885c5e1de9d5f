"""The demo's command line: `python -m e2e.demo run|down`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from subprocess import CalledProcessError

import typer
from rich.console import Console

from e2e.cluster.backends import select
from e2e.cluster.errors import ClusterError
from e2e.demo import quickstart, target, view
from e2e.demo.kubectl import Kubectl, KubectlError
from e2e.demo.preparation import run_side_by_side
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
    with clock.step("Install Tunewright with Helm"):
        quickstart.leftovers(kubectl)
        quickstart.install(kubectl, images)
        console.print(kubectl.run("get", "pods", "-n", quickstart.OPERATOR_NAMESPACE).rstrip())
    with clock.step("Upload base model and dataset"):
        quickstart.upload(kubectl, images["trainer"], quickstart.inputs())
    with clock.step("Train, evaluate and export on two pods"):
        quickstart.submit(kubectl)
        job = watch_job(kubectl)
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
    epilogue(kubectl, clock)


def watch_job(kubectl: Kubectl) -> quickstart.Object:
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

        return quickstart.follow_job(kubectl, JOB, seen)


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
