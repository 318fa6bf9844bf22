"""Arguments as Hydra reads them."""

import pytest

from mocosfl.config.command_line import quote_choices


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
