"""`tunewright get`: the list of everything, or the chain of one object, once or live."""

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial

from tunewright_api.names import LABEL_MANAGED_BY, MANAGED_BY
from tunewright_cli.cluster.client import Api, Object
from tunewright_cli.cluster.errors import ForbiddenError, NotFoundError
from tunewright_cli.exits import CliError, Exit
from tunewright_cli.kinds import Kind
from tunewright_cli.parallel import start
from tunewright_cli.parse import Target
from tunewright_cli.session import Session

OURS = {"labelSelector": f"{LABEL_MANAGED_BY}={MANAGED_BY}"}
Fetch = Callable[[], list[list[Object]]]


def run(target: Target, _: str, *, name: str, watch: bool, output: str, all_namespaces: bool) -> Exit:
    """Print what was asked for."""
    if name and all_namespaces:
        raise CliError(f"{name} is looked for in one namespace: replace -A by -n NAMESPACE")
    if watch and output == "json":
        raise CliError("JSON is printed once: leave out -w, or watch with kubectl get -w -o json")
    session = Session(target)
    namespace = "" if all_namespaces else session.namespace
    if watch:
        from tunewright_cli.commands.live import watch_chain, watch_list

        if name:
            return watch_chain(session, name, wide=output == "wide")
        return watch_list(session, namespace, wide=output == "wide")
    if name:
        return _show_chain(session, name, output)
    return _show_list(session.api, namespace, output)


def start_lists(api: Api, namespace: str, *, pods: bool = False) -> Fetch:
    """Ask for jobs, versions, services (and our pods) side by side; call the result to wait for them.

    What the user may not list is left out, as an approver sees versions alone; CliError when that is everything.
    """
    waiting = [start(partial(_list, api, kind.path(namespace))) for kind in Kind]
    if pods:
        waiting.append(start(partial(_list, api, f"/api/v1/namespaces/{namespace}/pods", OURS)))

    def results() -> list[list[Object]]:
        found = [wait() for wait in waiting]
        refused = [one for one in found[: len(Kind)] if isinstance(one, ForbiddenError)]
        if len(refused) == len(Kind):
            advice = "ask for the role tunewright-view, or look elsewhere with -n NAMESPACE"
            raise CliError(f"{refused[0]}: {advice}", Exit.REFUSED)
        return [[] if isinstance(one, ForbiddenError) else one for one in found]

    return results


def _list(api: Api, path: str, selectors: Mapping[str, str] | None = None) -> list[Object] | ForbiddenError:
    try:
        return api.list_all(path, selectors)[0]
    except ForbiddenError as error:
        return error
    except NotFoundError:
        sentence = "this cluster does not know Tunewright's kinds: run tunewright check"
        raise CliError(sentence, Exit.NOT_READY) from None


def _show_list(api: Api, namespace: str, output: str) -> Exit:
    results = start_lists(api, namespace)
    # What shows the answer is imported while the apiserver works on it.
    from tunewright_cli.console import make_console
    from tunewright_cli.forest import build_forest
    from tunewright_cli.views.forest import count, render_forest
    from tunewright_cli.views.style import now_utc

    rows = build_forest(*results())
    if output == "json":
        sys.stdout.write(json.dumps([row.to_dict() for row in rows], indent=2) + "\n")
        return Exit.OK
    if not rows:
        where = f"namespace {namespace}" if namespace else "any namespace"
        sys.stderr.write(f"nothing in {where}: apply a FineTuneJob, or look elsewhere with -n NAMESPACE or -A\n")
        return Exit.OK
    console = make_console()
    width = console.width if console.is_terminal else 0
    for batch in render_forest(rows, now_utc(), width=width, namespaces=not namespace, wide=output == "wide"):
        console.print(batch, soft_wrap=True)
    console.print(count(rows), style="dim")
    return Exit.OK


def _show_chain(session: Session, name: str, output: str) -> Exit:
    results = start_lists(session.api, session.namespace, pods=True)
    from tunewright_cli.chain import Objects, build_chain, find_focus

    if output != "json":
        from tunewright_cli.console import make_console
        from tunewright_cli.views.chain import render_chain
        from tunewright_cli.views.style import now_utc

    objects = Objects.of(session.namespace, *results())
    chain = build_chain(find_focus(name, objects), objects)
    if output == "json":
        sys.stdout.write(json.dumps(chain, indent=2, ensure_ascii=False) + "\n")
    else:
        make_console().print(render_chain(chain, now_utc(), wide=output == "wide"))
    return Exit.OK
