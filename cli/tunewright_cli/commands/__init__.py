"""One module per command: fetch what it needs, let pure code decide, print."""
