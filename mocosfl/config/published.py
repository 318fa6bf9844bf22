"""The published rules for any number of clients; conf/ reads them as resolvers."""


def _check_num_clients(num_clients: int) -> None:
    if num_clients < 1:  # said here because the rule is applied before `validate` sees anything
        raise ValueError(f"clients.num_clients={num_clients}: must be at least 1")


def published_batch_size(num_clients: int) -> int:
    """Return b of the published rule: 100 // N for N up to 50, else 1; N at least 1."""
    _check_num_clients(num_clients)
    return 100 // num_clients if num_clients <= 50 else 1


def published_syncs_per_round(num_clients: int) -> int:
    """Return F of the published rule: 1000 // (b N), at least 1."""
    return max(1, 1000 // (published_batch_size(num_clients) * num_clients))


def published_participation(num_clients: int) -> float:
    """Return the fraction of clients in a pool: 1 below 200 clients, else 1 / (N // 100)."""
    _check_num_clients(num_clients)
    return 1.0 if num_clients < 200 else 1 / (num_clients // 100)


def published_rounds(num_clients: int, num_epochs: int) -> int:
    """Return the rounds in which each image is seen `num_epochs` times on average."""
    _check_num_clients(num_clients)
    # 1 / participation, as an integer: the float would round up where it should not.
    return num_epochs * (1 if num_clients < 200 else num_clients // 100)


def published_classes_per_client(num_classes: int) -> int:
    """Return how many classes a non-IID client has in the papers: 2 of 10 or 12, 20 of 100."""
    return max(min(2, num_classes), num_classes // 5)
