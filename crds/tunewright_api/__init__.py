"""The contract of Tunewright: what users write, what the operator reports, what the images read.

Everything that two parts of the system must agree on lives in this package and nowhere else:

- `finetunejob`, `modelversion`, `inferenceservice`: spec and status of the three kinds.
- `trainer_config`, `server_config`: the configuration files the operator mounts into the images.
- `results`: what a stage says when it ends (termination message) and while it runs (`/progress`).
- `artifact`: the manifest of a model on disk and its digest.
- `names`: group, labels, annotations, condition types, reasons, ports, exit codes.
- `crd`: writes the CustomResourceDefinitions from the models.
"""
