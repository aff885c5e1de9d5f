"""How fast the trainer is: each module prints ratios from one run."""
