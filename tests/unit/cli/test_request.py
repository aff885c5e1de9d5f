"""Requests to a rollout, and who may decide about a version: pure parts."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests import cli_objects as make
from tunewright_api.rollout_status import HandledRequest, RequestOutcome
from tunewright_cli.approvers import approvers
from tunewright_cli.exits import CliError, Exit
from tunewright_cli.rollout_request import answer_of, format_request, revision_for

Object = dict[str, Any]


@pytest.mark.parametrize("verb", ["promote", "abort", "pause", "resume"])
def test_a_request_means_the_candidate(verb: str) -> None:
    assert revision_for(verb, make.service(status=make.rolling())) == make.CANDIDATE
    assert revision_for(verb, make.service(status=make.rolling()), "abc") == "abc"


def test_a_retry_means_what_was_rolled_back() -> None:
    assert revision_for("retry", make.service(status=make.rolled_back())) == make.CANDIDATE


@pytest.mark.parametrize(
    ("verb", "service", "sentence"),
    [
        ("promote", make.service(), "no rollout of guide is under way: there is nothing to promote"),
        (
            "abort",
            make.service(status=make.rolled_back()),
            "no rollout of guide is under way: guide-v2 was rolled back, try it again with: tunewright retry guide",
        ),
        ("retry", make.service(), "no revision of guide was rolled back: there is nothing to retry"),
    ],
)
def test_where_there_is_nothing_to_ask_for_the_command_refuses(verb: str, service: Object, sentence: str) -> None:
    with pytest.raises(CliError) as error:
        revision_for(verb, service)
    assert (str(error.value), error.value.code) == (sentence, Exit.REFUSED)


def test_two_equal_requests_differ_by_their_time() -> None:
    first = format_request("pause", "c0ffee12", datetime(2026, 11, 22, 15, 0, 0, 1, UTC))
    assert first == "pause@c0ffee12/2026-11-22T15:00:00.000001Z"
    assert first != format_request("pause", "c0ffee12", datetime(2026, 11, 22, 15, 0, 0, 2, UTC))


def test_only_the_echo_of_this_request_is_its_answer() -> None:
    handled = HandledRequest(
        request="pause@c0ffee12/1", outcome=RequestOutcome.DONE, message="paused at 20 percent", time=make.NOW
    )
    service = make.service(status=make.rolling().model_copy(update={"last_handled_request": handled}))
    assert answer_of(service, "pause@c0ffee12/1") == handled.to_dict()
    assert answer_of(service, "pause@c0ffee12/2") is None
    assert answer_of(make.service(), "pause@c0ffee12/1") is None


def _role(kind: str, name: str, namespace: str = "", **rule: list[str]) -> Object:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    whole = {"apiGroups": ["tunewright.io"], "resources": ["modelversions"], "verbs": ["approve"]} | rule
    return {"kind": kind, "metadata": meta, "rules": [whole]}


def _binding(kind: str, name: str, *subjects: Object, namespace: str = "team") -> Object:
    meta = {"name": "b"} | ({"namespace": namespace} if namespace else {})
    return {"metadata": meta, "roleRef": {"kind": kind, "name": name}, "subjects": list(subjects)}


OLIVIA = {"kind": "User", "name": "olivia@example.com"}
LEADS = {"kind": "Group", "name": "leads"}
ROBOT = {"kind": "ServiceAccount", "name": "gate", "namespace": "ci"}


@pytest.mark.parametrize(
    ("roles", "bindings", "names"),
    [
        pytest.param(
            [_role("ClusterRole", "approve")],
            [
                _binding("ClusterRole", "approve", OLIVIA, LEADS),
                _binding("ClusterRole", "approve", ROBOT, namespace=""),
            ],
            ["group leads", "olivia@example.com", "service account ci/gate"],
            id="users, groups and accounts",
        ),
        pytest.param(
            [_role("Role", "approve", "team")],
            [_binding("Role", "approve", OLIVIA), _binding("Role", "approve", LEADS, namespace="other")],
            ["olivia@example.com"],
            id="a Role counts in its own namespace",
        ),
        pytest.param(
            [_role("ClusterRole", "edit", verbs=["patch"])], [_binding("ClusterRole", "edit", OLIVIA)], [], id="no verb"
        ),
        pytest.param(
            [_role("ClusterRole", "all", verbs=["*"], resources=["*"], apiGroups=["*"])],
            [_binding("ClusterRole", "all", OLIVIA)],
            ["olivia@example.com"],
            id="wildcards",
        ),
        pytest.param(
            [_role("ClusterRole", "cluster-admin", verbs=["*"])],
            [_binding("ClusterRole", "cluster-admin", LEADS, namespace="")],
            [],
            id="administrators are not who is meant",
        ),
    ],
)
def test_who_may_decide(roles: list[Object], bindings: list[Object], names: list[str]) -> None:
    assert approvers(roles, bindings) == names
