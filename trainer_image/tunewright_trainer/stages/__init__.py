"""One module per stage, each with `run(config) -> …Result`."""
