"""The matrix of real clients: see ../README.md."""
