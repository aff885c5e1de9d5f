"""What a command starts with: the cluster of its options."""

from functools import cached_property

from tunewright_cli.cluster.client import Api, Object
from tunewright_cli.cluster.errors import NotFoundError
from tunewright_cli.cluster.kubeconfig import Choice, load_config
from tunewright_cli.exits import CliError
from tunewright_cli.kinds import Kind, parse_reference
from tunewright_cli.parse import Target


class Session:
    """The apiserver and the namespace of one command."""

    def __init__(self, target: Target) -> None:
        self.config = load_config(Choice(target.kubeconfig, target.context, target.namespace, target.impersonate))
        self.namespace = self.config.namespace

    @cached_property
    def api(self) -> Api:
        """The apiserver."""
        return Api(self.config)

    def find(self, kind: Kind, name: str) -> Object:
        """One object of ours, by NAME or KIND/NAME; raises CliError when it is not there, or of another kind."""
        given, name = parse_reference(name)
        if given and given is not kind:
            raise CliError(f"this is about {kind.title}s: give the name of one")
        try:
            found: Object = self.api.get(kind.path(self.namespace, name))
        except NotFoundError:
            where = f"namespace {self.namespace}"
            raise CliError(
                f"there is no {kind.title} {name} in {where}: correct the name, or give -n NAMESPACE"
            ) from None
        return found
