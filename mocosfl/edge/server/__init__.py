"""The networked server: `python -m mocosfl.edge.server`."""
