"""Training over a network: one server, and clients that are other machines.

Here is what both sides need, and the commands that prepare them. `client` and `server` never import
each other.

    federation.proto   the messages; federation_pb2 is what protobuf makes of them
    wire               tensors as bytes, the limits of what is accepted, `Refusal`
    credentials        reads a side's own certificate, key and authority
    certificate_names  which client a certificate names
    certificates       the command that makes certificates
    deal               the command that writes each client's images
    client/            the program on a device
    server/            the program that trains

A client with an exported head must start without torch, hydra, omegaconf and Lightning: what it
imports from here has none of them at its top.
"""
