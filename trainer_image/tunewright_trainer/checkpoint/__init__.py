"""Training state that outlives a process: complete or absent, written while training goes on."""
