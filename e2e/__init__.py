"""End-to-end tests of Tunewright and the throw-away cluster that they run on."""
