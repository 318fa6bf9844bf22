"""The algorithm: torch, NumPy, `system`, `config` and `models` alone.

A training step has eight parts; the numbers stand beside the lines that do them.

1. Each client of the pool draws its images and makes two views of each. The data side does so, and
   hands over a `Step` (`step_input.py`).
2. Query: the online heads run the first view. Then each momentum head moves towards its online
   head, and runs the second view: the key (`client_pool.py`, `folding.py`, `ema.py`).
3. What crosses the cut is put together in pool order (`federation.py`).
4. The server's momentum copies move (`server.py`, `ema.py`).
5. One contrastive pass, or two, against the queue as it was (`server.py`, `loss.py`).
6. The new keys overwrite the oldest ones (`queue.py`).
7. One backward pass gives the server and every client its own gradient; SGD steps both
   (`optimizer.py`).
8. After a step in which a sync is due, all clients get the mean of the pool's heads
   (`client_pool.py`, `averaging.py`).

The step itself is `Federation.smash` (2, 3) and `Federation.learn` (4 to 6, and the loss of 7) in
`federation.py`. Lightning runs 7; `training/module.py` calls 8 after the optimizer's step.

The state of clients outside the pool is in the bank (`client_bank.py`). `saving.py` leaves out what
a round without traffic leaves out. `single_client.py` has parts 2 and 7 of one client by itself,
not folded with others: on a device, and where one client's memory is measured. `build.py` makes all
of it from a configuration.

Several processes meet at two points of the mathematics: keys before the queue
(`SmashedStep.of_all`), and heads at a sync or a change of the pool (`ranks.py`). DDP adds up the
server's gradients in between. What is logged is added up too: loss and accuracy
(`Federation.over_all_rows`); the spread is that of all processes' embeddings.
"""
