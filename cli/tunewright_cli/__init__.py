"""The `tunewright` command, also installed as `kubectl-tunewright`.

    app         the commands and their options (typer); imports nothing else until a command runs
    commands/   one module per command: fetch, decide, print
    cluster/    kubeconfig, HTTP to the apiserver, watches, port-forward
    chain       objects -> the chain dataset, job, version, service            pure
    forest      objects -> the list of everything                              pure
    readiness   objects -> ordered readiness checks of one object              pure
    checks/     a snapshot of the cluster -> what is broken, and its fix       pure
    views/      any of these -> a rich renderable                              pure
    load/       requests to a model server, and their statistics

It talks to the apiserver with the standard library: importing the official client alone would take longer than the
first screen may.
"""
