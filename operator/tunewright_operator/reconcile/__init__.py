"""Where decisions meet I/O: one short function per kind."""
