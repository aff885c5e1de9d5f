"""The command line of the throw-away cluster: `python -m e2e.cluster COMMAND`."""

from __future__ import annotations

import shutil
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from e2e.cluster import build as builder
from e2e.cluster.backends import Backend, select
from e2e.cluster.errors import ClusterError
from e2e.cluster.progress import CROSS, TICK, console, step

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="A real, throw-away Kubernetes: up, use it, down.\n\n"
    "`CLUSTER=local` (the default) builds and runs it here as root, `CLUSTER=kubeconfig` uses the cluster of "
    "`$KUBECONFIG`, `CLUSTER=kind` makes one with kind. Everything is kept below `$TUNEWRIGHT_CACHE` "
    "(`~/.cache/tunewright`).",
)


@app.command()
def up(
    mesh: Annotated[bool, typer.Option("--mesh", help="Add Istio, its gateway and Prometheus.")] = False,
) -> None:
    """Start the cluster, or whatever of it is missing. Builds and installs what it needs first."""
    started = time.monotonic()
    backend = _backend()
    kubeconfig = backend.up(step, mesh=mesh)
    console.print(f"Ready after {time.monotonic() - started:.1f} s. Use it with:")
    console.print(f"  export KUBECONFIG={kubeconfig}", soft_wrap=True)
    for name, url in backend.addresses().items():
        console.print(f"  {name}: {url}")


@app.command()
def down(
    images: Annotated[bool, typer.Option("--images", help="Remove the loaded images from the cache, too.")] = False,
) -> None:
    """Remove the cluster and every trace of it. Programs and loaded images stay in the cache."""
    _backend().down(step, images=images)


@app.command()
def status() -> None:
    """Show every component; the exit status says whether all are ready."""
    table = Table("component", "pid", "ready", Column("log", overflow="fold"), box=None)
    components = list(_backend().status())
    for one in components:
        table.add_row(one.name, str(one.pid or "-"), TICK if one.ready else CROSS, str(one.log))
    Console(highlight=False, soft_wrap=True).print(table)
    if not all(one.ready for one in components):
        raise typer.Exit(1)


@app.command()
def kubeconfig() -> None:
    """Print the path of the admin's kubeconfig."""
    typer.echo(_backend().kubeconfig())


@app.command()
def load_image(
    archive: Annotated[str, typer.Argument(help="A docker-archive or OCI archive, or - for standard input.")],
) -> None:
    """Load an image archive into the cluster."""
    for name in _backend().load_image(archive):
        typer.echo(name)


@app.command()
def images() -> None:
    """List the images in the cluster."""
    for name in _backend().images():
        typer.echo(name)


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="Programs to build; by default all.")] = None,
) -> None:
    """Only build the programs into the cache, and say where they are."""
    known = builder.wanted(have_kubectl=False)
    wanted = names or builder.wanted(have_kubectl=shutil.which("kubectl") is not None)
    if unknown := set(wanted) - set(known):
        raise ClusterError(f"Nobody knows {', '.join(sorted(unknown))}: choose among {', '.join(known)}.")
    for built in builder.ensure(wanted, lambda text: console.print(f"  {text}", style="dim")):
        console.print(f"{TICK} {', '.join(built.names)}: {built.seconds:.0f} s")
    for name in wanted:
        typer.echo(builder.binary(name))


def _backend() -> Backend:
    return select()


def main() -> None:
    """Run the command line; a ClusterError is one sentence and exit status 1."""
    try:
        app()
    except ClusterError as error:
        console.print(f"[red]error:[/red] {error}", markup=True, soft_wrap=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
