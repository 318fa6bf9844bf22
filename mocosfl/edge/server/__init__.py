"""The networked server: `python -m mocosfl.edge.server`.

Who does what; each calls those below it:

    __main__              the command: train.py with the deployment below
    networked_deployment  what `mocosfl.training` must know of remote clients
    build                 makes the networked module of a simulation's module
    networked_module      Lightning's hooks: when the clients are asked
    networked_federation  remote clients' rows and heads in a step and a sync
    remote_clients        calls that wait, from the training's thread to that of the streams
    pool_requests         asks many clients, waits until a deadline, skips late ones
    client_requests       asks one client one thing at a time, and checks its answer
    client_streams        gRPC: listens, moves bytes, knows who is connected
    admission             lets a client in: Hello, certificate, the state that it starts with
    client_settings       what each client is told, and what its tensors must look like
    traffic_ledger        counts each client's steps and bytes
    traffic_comparison    these bytes beside the predicted ones, for edge.json

To resume a run: each client keeps its own state when it is asked to (`Keep`, before a checkpoint);
the checkpoint has the run's name and the ledger; admission says what a client starts with.
"""
