"""A client on another machine: `python -m mocosfl.edge.client`."""
