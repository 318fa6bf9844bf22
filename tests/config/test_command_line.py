"""Arguments as Hydra reads them."""

import pytest

from mocosfl.config.command_line import check_simulated, quote_choices


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("clients=5,100", "clients='5','100'"),
        ("clients=20_cross_silo,demo", "clients=20_cross_silo,demo"),
        ("clients='5'", "clients='5'"),
        ("clients.num_clients=5", "clients.num_clients=5"),
        ("split=cut1,cut2", "split=cut1,cut2"),
    ],
)
def test_numbers_that_name_a_choice_are_quoted_for_hydra(argument: str, quoted: str):
    assert quote_choices([argument]) == [quoted]


def test_programs_that_simulate_refuse_the_server_s_keys() -> None:
    assert check_simulated(["dataset=digits", "notes=edge.listen"])
    with pytest.raises(ValueError, match=r"edge\.listen=1: this program simulates its clients"):
        check_simulated(["dataset=digits", "edge.listen=1"])
