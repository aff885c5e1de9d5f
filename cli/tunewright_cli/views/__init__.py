"""What people see: pure functions from data to rich renderables."""
