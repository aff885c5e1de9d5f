"""The trainer image: config file in, artifact out, one stage per container (see `__main__`)."""
