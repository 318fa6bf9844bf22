"""What is in a checkpoint: the names of its parts. Lightning's file, read by `torch.load`.

    global_step         steps done
    max_steps           steps that the run was to do
    images_seen         images that all clients have trained on
    config              the run's resolved configuration, plain values
    state_dict          tensors by name:
        federation.clients.online.*     stacked heads that train, (pool, ...)
        federation.clients.momentum.*   their momentum copies, (pool, ...)
        federation.clients.head.*       one head, filled with the mean when that is asked for: no
                                        state; `checkpoint.synchronised_head` is the mean head
        federation.clients.pool         the clients of the pool, (pool,)
        federation.clients._extra_state the bank: heads of the clients outside the pool     resume
        federation.server.trunk.*       the trunk; the encoder is the mean head, then the trunk
        federation.server.projector.*   the projector, or the classifier of a supervised method
        federation.server.momentum_trunk.*, federation.server.momentum_projector.*
        federation.server.queue.*       keys and where the next ones go
        attackers.*                     the simulated attackers of TAResSFL                 resume
    optimizer_states    SGD's buffers; those of the heads are stacked                       resume
    lr_schedulers, loops                Lightning's own                                     resume
    callbacks           by the callback's name: `Alarm`, `KnnMonitor`                       resume
    saving              mode, losses and smashed data, with `saving=by_loss`                resume
    edge                the run's name and the ledger of the streams, of a networked run    resume

`last.ckpt` holds all of it, so that a run resumes from there as if it had never stopped.
`best.ckpt` holds weights alone: parts marked `resume` are left out.
"""

STEP = "global_step"

MAX_STEPS = "max_steps"

IMAGES_SEEN = "images_seen"

CONFIG = "config"

STATE = "state_dict"

OPTIMIZERS = "optimizer_states"

CALLBACKS = "callbacks"

SAVING = "saving"

EDGE = "edge"

# In `state_dict`: prefixes of names, or a name.
CLIENTS = "federation.clients."

HEADS = f"{CLIENTS}online."

PROJECTOR_IN_HEAD = "projector."  # below a head that is the whole network: after the features

MOMENTUM_HEADS = f"{CLIENTS}momentum."

STACKS = (HEADS, MOMENTUM_HEADS)  # a row a client of the pool

BANK = f"{CLIENTS}_extra_state"

SERVER = "federation.server."

TRUNK = f"{SERVER}trunk."

SERVER_PARTS = ("trunk", "projector", "momentum_trunk", "momentum_projector")  # networks

ATTACKERS = "attackers."

# In `callbacks`.
ALARM = "Alarm"

SUSPICIOUS_SINCE = "suspicious_since"  # in the alarm's part: step, or None
