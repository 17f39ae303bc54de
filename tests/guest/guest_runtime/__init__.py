"""Small virtual machines for tests: see ../README.md."""
