"""A client on another machine: `python -m mocosfl.edge.client`.

Who does what, and calls whom:

    __main__           options, signals, the words at the end; calls participation
    participation      connects, answers, and connects again until the run is finished
    server_connection  dials the server: one stream, and the waits between two tries
    answers            what a client answers to each message; calls server_checks and a head
    server_checks      what is checked of a message before anything is computed
    tally              counts images, steps, bytes and seconds
    client_head        `ClientHead`: what answers asks of a head, one of the next two
    training_head      a head that trains, with torch; calls kept_states and own_images
    frozen_head        an exported head, without torch; calls the last three
    kept_states        what a training head keeps on disk to be resumed
    exported_head      the ONNX file of a head, and running it
    pillow_views       random views without torch
    own_images         the images that the client holds

All but training_head and kept_states run without torch.
"""
