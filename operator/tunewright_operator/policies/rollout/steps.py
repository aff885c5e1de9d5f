"""What spec.rollout asks for, as numbers: weights, gates, checks and pods. No state of a rollout is decided here."""

from math import ceil

from tunewright_api.rollout import MetricCheck, Rollout, RolloutMetric, Strategy, ThresholdRange
from tunewright_api.rollout_status import CandidateStatus
from tunewright_api.traffic import TrafficProvider

MANUAL_GATE, AUTO_PROMOTE_OFF = "ManualGate", "AutoPromoteOff"
_STEP_WEIGHT, _MAX_WEIGHT = 10, 50
# Percentiles of a few dozen answers of different length differ by a quarter from window to window.
_TOLERANCE_PERCENT = 50
_COMPLETION_TOLERANCE_PERCENT = 5
# A gate at weight w stands before every weight above w, and all traffic is above every weight.
_ALL_TRAFFIC = 101


def default_metrics(strategy: Strategy) -> list[MetricCheck]:
    """What is measured when spec.rollout.metrics is absent: traffic is there to be measured in a Canary alone."""
    if strategy is not Strategy.CANARY:
        return []
    return [
        MetricCheck(name=RolloutMetric.ERROR_RATE, threshold_range=ThresholdRange(max=1)),
        # An answer that a user stops is not complete: only the stable revision tells how many users do.
        MetricCheck(name=RolloutMetric.COMPLETION_RATE, tolerance_percent=_COMPLETION_TOLERANCE_PERCENT),
        MetricCheck(name=RolloutMetric.TTFT_P95, tolerance_percent=_TOLERANCE_PERCENT),
        MetricCheck(name=RolloutMetric.TPOT_P95, tolerance_percent=_TOLERANCE_PERCENT),
    ]


def checks_of(rollout: Rollout) -> list[MetricCheck]:
    """What is measured at each check. Copies of requests that nobody looks at would show nothing, so `mirror` has the
    defaults of a Canary."""
    if rollout.strategy is Strategy.RECREATE:
        return []
    if rollout.metrics is not None:
        return list(rollout.metrics)
    return default_metrics(Strategy.CANARY if rollout.mirror else rollout.strategy)


def is_judged(rollout: Rollout) -> bool:
    """Whether a candidate has to pass checks. BlueGreen with nothing to look at switches as soon as it is complete."""
    match rollout.strategy:
        case Strategy.CANARY:
            return True
        case Strategy.BLUE_GREEN:
            return bool(checks_of(rollout) or rollout.probes or rollout.iterations)
    return False


def passes_needed(rollout: Rollout) -> int:
    """Checks that a BlueGreen candidate has to pass."""
    return (rollout.iterations or 1) if is_judged(rollout) else 0


def weights_of(rollout: Rollout) -> tuple[int, ...]:
    """The weights of a candidate on its way, rising; empty where the traffic moves all at once."""
    if rollout.strategy is not Strategy.CANARY:
        return ()
    if rollout.steps:
        return tuple(sorted(set(rollout.steps)))
    step = rollout.step_weight or min(_STEP_WEIGHT, rollout.max_weight or _STEP_WEIGHT)
    largest = rollout.max_weight or max(_MAX_WEIGHT, step)
    return (*range(step, largest, step), largest)


def next_weight(rollout: Rollout, weight: int) -> int | None:
    """The weight after this one; None when all traffic comes next."""
    return next((step for step in weights_of(rollout) if step > weight), None)


def closed_gates(rollout: Rollout, candidate: CandidateStatus) -> list[int]:
    """The manual gates between the candidate's weight and its next one that nobody has opened."""
    if rollout.strategy is not Strategy.CANARY:
        return []
    following = next_weight(rollout, candidate.weight) or _ALL_TRAFFIC
    gates = set(rollout.manual_gates or ()) - set(candidate.opened_gates)
    return sorted(gate for gate in gates if candidate.weight <= gate < following)


def wait_reason(rollout: Rollout, candidate: CandidateStatus) -> str | None:
    """Why a candidate that has passed all its checks so far must not go on by itself."""
    if closed_gates(rollout, candidate):
        return MANUAL_GATE
    if rollout.strategy is Strategy.CANARY:
        last = next_weight(rollout, candidate.weight) is None
    else:
        last = candidate.step >= passes_needed(rollout)
    return AUTO_PROMOTE_OFF if last and not rollout.auto_promote else None


def mirror_weight(rollout: Rollout) -> int:
    """Percent of the requests that are copied to a candidate before it answers any."""
    return (rollout.mirror_weight or 100) if rollout.mirror else 0


def candidate_pods(rollout: Rollout, provider: TrafficProvider, replicas: int, weight: int) -> int:
    """Pods that a candidate of this weight needs. A plain Service weighs revisions by their pods, so without a
    provider a Canary has the share of its weight, and all pods at the last step, from which it takes over."""
    weight = weight or next_weight(rollout, 0) or 100
    if provider is not TrafficProvider.NONE or next_weight(rollout, weight) is None:
        return replicas
    return min(replicas, max(1, ceil(replicas * weight / 100)))
