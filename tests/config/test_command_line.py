"""Arguments as Hydra reads them."""

import pytest

from mocosfl.config.command_line import check_simulated, is_of_edge, quote_choices


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


@pytest.mark.parametrize("argument", ["edge.listen=1", "+edge.listen=1", "edge=null", "~edge.x"])
def test_programs_that_simulate_refuse_the_servers_keys(argument: str):
    with pytest.raises(ValueError, match=r"edge.*: this program simulates its clients"):
        check_simulated(["dataset=digits", argument])


def test_words_that_only_name_the_server_are_no_keys_of_it():
    arguments = ["dataset=digits", "notes=edge.listen", "edges=1"]
    assert check_simulated(arguments) == arguments
    assert not any(map(is_of_edge, arguments))
