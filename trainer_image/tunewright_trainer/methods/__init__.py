"""How the weights are changed: one module per method, put together by build.py and taken apart again by tuned.py."""
