"""Every command with its arguments and options, declared once.

`app` builds the typer application from it (help, mistakes, the reference page), `parse` reads a correct command line
without importing typer, which would take longer than the first screen may.
"""

from typing import Any, NamedTuple

OUTPUTS = ("json",)
VERBS = ("promote", "abort", "pause", "resume", "retry")


class Parameter(NamedTuple):
    """An argument (no flags) or an option. `kind` is str, int, float or bool (a flag without a value)."""

    name: str
    help: str
    flags: tuple[str, ...] = ()
    kind: type = str
    default: Any = ""
    required: bool = False
    choices: tuple[str, ...] = ()
    metavar: str = ""
    minimum: int | None = None


class Command(NamedTuple):
    """A command; the module `tunewright_cli.commands.MODULE` runs it."""

    name: str
    help: str
    examples: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    module: str


CLUSTER = (
    Parameter("namespace", "Namespace; the kubeconfig's if absent.", ("--namespace", "-n"), metavar="NAME"),
    Parameter("context", "Context of the kubeconfig.", ("--context",), metavar="NAME"),
    Parameter(
        "kubeconfig", "Kubeconfig file; KUBECONFIG or ~/.kube/config if absent.", ("--kubeconfig",), metavar="PATH"
    ),
    Parameter("impersonate", "Act as another user, if you may.", ("--as",), metavar="USER"),
)
_JSON = Parameter("output", "json, for programs.", ("--output", "-o"), choices=OUTPUTS)
_YES = Parameter("yes", "Do not ask.", ("--yes", "-y"), bool, False)
_SERVICE = Parameter("service", "Name of the InferenceService.", required=True)
_REVISION = Parameter(
    "revision", "Hash of a revision, or candidate; the stable one if absent.", ("--revision",), metavar="HASH"
)
_MAX_TOKENS = Parameter("max_tokens", "Longest answer, in tokens.", ("--max-tokens",), int, 256, minimum=1)
_TEMPERATURE = Parameter(
    "temperature", "Randomness of the choice of each token; the service's if absent.", ("--temperature",), float, None
)
_URL = Parameter("url", "OpenAI-compatible base URL to use instead of a port-forward.", ("--url",), metavar="URL")
_MODEL = Parameter("model", "Model of the requests; the service's name if absent.", ("--model",), metavar="NAME")


def _request(verb: str, what: str) -> Command:
    return Command(
        verb,
        what,
        (f"tunewright {verb} guide -n quickstart",),
        (
            _SERVICE,
            Parameter(
                "revision",
                "Hash of the revision you mean; the one on its way if absent.",
                ("--revision",),
                metavar="HASH",
            ),
            Parameter("no_wait", "Do not wait for the operator's answer.", ("--no-wait",), bool, False),
            Parameter("timeout", "Seconds to wait for the operator's answer.", ("--timeout",), float, 30.0),
        ),
        "request",
    )


COMMANDS = (
    Command(
        "check",
        "Look for what is broken in the installation; each finding comes with its fix.",
        ("tunewright check", "tunewright check --wait --timeout 300"),
        (
            Parameter("wait", "Look again until nothing is broken.", ("--wait",), bool, False),
            Parameter("timeout", "Seconds to wait at most.", ("--timeout",), float, 300.0),
            _JSON,
        ),
        "check",
    ),
    Command(
        "get",
        "Show everything in the namespace, or the whole chain of one object: dataset, job, version, service.",
        ("tunewright get", "tunewright get guide -n quickstart -w"),
        (
            Parameter("name", "Job, version or service; ftj/NAME, mv/NAME or tis/NAME where several have the name."),
            Parameter("watch", "Stay, and redraw with every change.", ("--watch", "-w"), bool, False),
            Parameter("output", "json for programs, wide for more.", ("--output", "-o"), choices=("json", "wide")),
            Parameter("all_namespaces", "List all namespaces.", ("--all-namespaces", "-A"), bool, False),
        ),
        "get",
    ),
    Command(
        "why",
        "Say why an object is not ready: the first check that fails, its event, its log, and the fix.",
        ("tunewright why guide -n quickstart",),
        (Parameter("name", "Job, version or service; tis/NAME where several have the name.", required=True), _JSON),
        "why",
    ),
    Command(
        "estimate",
        "Estimate the memory that training a job needs on each device; it asks no cluster.",
        (
            "tunewright estimate -f job.yaml --model-config config.json",
            "tunewright estimate -f job.yaml --model-config config.json --gpu-memory 80Gi",
        ),
        (
            Parameter(
                "file",
                "YAML file with the FineTuneJob; - is the standard input.",
                ("--filename", "-f"),
                required=True,
                metavar="PATH",
            ),
            Parameter(
                "model_config",
                "config.json of the base model, or its directory.",
                ("--model-config",),
                required=True,
                metavar="PATH",
            ),
            Parameter(
                "gpu_memory",
                "Memory of one GPU, for example 80Gi: exit code 2 if the job does not fit.",
                ("--gpu-memory",),
                metavar="SIZE",
            ),
            _JSON,
        ),
        "estimate",
    ),
    Command(
        "approve",
        "Approve a ModelVersion, for the digest that is shown.",
        ("tunewright approve guide-v2 --reason 'better on every question'",),
        (
            Parameter("version", "Name of the ModelVersion.", required=True),
            Parameter("reason", "Why.", ("--reason",), metavar="TEXT"),
            _YES,
        ),
        "decide",
    ),
    Command(
        "reject",
        "Reject a ModelVersion; a service that serves it stops.",
        ("tunewright reject guide-v2 --reason 'answers in German'",),
        (
            Parameter("version", "Name of the ModelVersion.", required=True),
            Parameter("reason", "Why.", ("--reason",), required=True, metavar="TEXT"),
            _YES,
        ),
        "decide",
    ),
    _request("promote", "Give the candidate all traffic now, through every gate."),
    _request("abort", "Undo the rollout that is under way."),
    _request("pause", "Keep the candidate's weight as it is."),
    _request("resume", "End a pause, or open the manual gate that waits."),
    _request("retry", "Forget that the revision was rolled back, and try it again."),
    Command(
        "ask",
        "Ask a service one question, and print the answer as it comes.",
        ("tunewright ask guide 'What is a LoRA rank?' -n quickstart",),
        (
            _SERVICE,
            Parameter("question", "The question.", required=True),
            _REVISION,
            _MAX_TOKENS,
            _TEMPERATURE,
            _URL,
            _MODEL,
        ),
        "ask",
    ),
    Command(
        "chat",
        "Talk with a service; an empty line or Ctrl-D ends it.",
        ("tunewright chat guide -n quickstart",),
        (_SERVICE, _REVISION, _MAX_TOKENS, _TEMPERATURE, _URL, _MODEL),
        "chat",
    ),
    Command(
        "bench",
        "Send many streaming requests, and tell how fast the answers come.",
        ("tunewright bench guide --requests 200 --concurrency 16 -n quickstart",),
        (
            _SERVICE,
            Parameter("requests", "Requests in all.", ("--requests",), int, 100, minimum=1),
            Parameter("concurrency", "Requests at the same time.", ("--concurrency",), int, 8, minimum=1),
            Parameter("prompt_file", "File with one prompt a line, taken in turn.", ("--prompt-file",), metavar="PATH"),
            Parameter("max_tokens", "Longest answer, in tokens.", ("--max-tokens",), int, 64, minimum=1),
            _REVISION,
            _URL,
            _MODEL,
            Parameter("timeout", "Seconds that one request may take.", ("--timeout",), float, 120.0),
            _JSON,
        ),
        "bench",
    ),
)


def find_command(name: str) -> Command | None:
    """The command of this name."""
    return next((command for command in COMMANDS if command.name == name), None)
