"""Reading what leads requests to revisions the way a mesh does: from the objects alone, every reference followed."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.serving import NAMESPACE, service
from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.names import HEADER_REVISION, LABEL_REVISION
from tunewright_operator.manifests.traffic import Split, build_traffic

Object = dict[str, Any]

OPERATOR_NAMESPACE = "tunewright-system"
STABLE, CANDIDATE, RETIRED = "1111aaaa", "2222bbbb", "3333cccc"
CANARY = Split(STABLE, CANDIDATE, weight=20, mirror_weight=0, revisions=(STABLE, CANDIDATE))


def route(split: Split, traffic: Object | None = None, name: str = "guide") -> tuple[Object, ...]:
    """Everything that is written for this split."""
    obj = service(traffic=traffic or {})
    obj["metadata"]["name"] = name
    spec = InferenceServiceSpec.model_validate(obj["spec"])
    return build_traffic(obj, spec, split, OPERATOR_NAMESPACE)


def only(objects: Sequence[Object], kind: str, name: str = "guide") -> Object:
    """The object of this kind and name."""
    (found,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def selected(objects: Sequence[Object], name: str) -> str | None:
    """The revision that a Service selects; None for all of them."""
    found: str | None = only(objects, "Service", name)["spec"]["selector"].get(LABEL_REVISION)
    return found


def resolve(objects: Sequence[Object], destination: Object) -> str:
    """The revision behind a destination of Istio (host and subset) or a reference to a Service."""
    if "subset" not in destination:
        revision = selected(objects, destination["name"])
        assert revision is not None
        return revision
    (rule,) = (one for one in objects if one["spec"].get("host") == destination["host"])
    assert destination["host"].endswith(f".{NAMESPACE}.svc.cluster.local")
    assert selected(objects, destination["host"].split(".")[0]) is None
    (subset,) = (one for one in rule["spec"]["subsets"] if one["name"] == destination["subset"])
    revision = subset["labels"][LABEL_REVISION]
    assert isinstance(revision, str)
    return revision


def rules(router: Object) -> list[Object]:
    """The rules of a VirtualService or an HTTPRoute, in the order in which they are tried."""
    found: list[Object] = router["spec"].get("http") or router["spec"]["rules"]
    return found


def asked_by_header(rule: Object) -> str | None:
    """The revision whose header a rule waits for."""
    if "match" in rule:
        ((condition,),) = (match["headers"].items() for match in rule["match"])
        assert condition[0] == HEADER_REVISION
        exact: str = condition[1]["exact"]
        return exact
    if "matches" in rule:
        ((header,),) = (match["headers"] for match in rule["matches"])
        assert (header["type"], header["name"]) == ("Exact", HEADER_REVISION)
        value: str = header["value"]
        return value
    return None


def shares(objects: Sequence[Object], rule: Object) -> dict[str, int]:
    """revision -> percent of the requests that this rule takes."""
    backends = [(one["destination"], one.get("weight", 100)) for one in rule.get("route", ())]
    backends += [(one, one.get("weight", 100)) for one in rule.get("backendRefs", ())]
    return {resolve(objects, destination): weight for destination, weight in backends}


def copies(objects: Sequence[Object], rule: Object) -> dict[str, int]:
    """revision -> percent of the requests whose copies it gets."""
    if "mirror" in rule:
        return {resolve(objects, rule["mirror"]): rule["mirrorPercentage"]["value"]}
    mirrors = [one["requestMirror"] for one in rule.get("filters", ())]
    return {resolve(objects, one["backendRef"]): one["percent"] for one in mirrors}


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Any split: without a candidate, with one at any weight, with revisions that retire."""
    names = st.text("0123456789abcdef", min_size=8, max_size=8)
    stable, *others = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    candidate = draw(st.sampled_from([None, *others]))
    percent = st.integers(0, 100)
    weight, mirror = (draw(percent), draw(percent)) if candidate else (0, 0)
    alive = [stable, *([candidate] if candidate else ())]
    revisions = draw(st.permutations([*alive, *(one for one in others if one not in alive)]))
    return Split(stable, candidate, weight, mirror, tuple(revisions))
