"""The optimizer, its parameter groups, its learning rate, and when it stops early."""
