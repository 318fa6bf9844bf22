"""Nearest neighbours in blocks, and the pictures that are asked about."""

import numpy as np
import pytest

from mocosfl.encoders.neighbours import choose_queries, nearest_neighbours


@pytest.mark.parametrize("block", [3, 5, 100])
def test_neighbours_are_those_of_all_similarities(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr("mocosfl.encoders.neighbours._BLOCK_ROWS", block)
    features = np.random.default_rng(0).normal(size=(17, 4)).astype(np.float32)
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = directions @ directions.T
    np.fill_diagonal(similarity, -2)
    queries = np.array([0, 4, 16])
    found = nearest_neighbours(features, queries, 6)
    expected = np.argsort(-similarity[queries], axis=1)[:, :6]
    assert np.array_equal(found.rows, expected)
    np.testing.assert_allclose(
        found.similarities, np.take_along_axis(similarity[queries], expected, 1), atol=1e-6
    )
    with pytest.raises(ValueError, match=r"num_neighbors=17: 17 pictures have 16 others each"):
        nearest_neighbours(features, queries, 17)


def test_queries_are_spread_evenly_and_follow_the_seed():
    queries = choose_queries(1000, 10, seed=3)
    assert np.array_equal(queries // 100, np.arange(10))
    assert np.array_equal(queries, choose_queries(1000, 10, seed=3))
    assert not np.array_equal(queries, choose_queries(1000, 10, seed=4))
    assert np.array_equal(choose_queries(4, 10, seed=3), np.arange(4))
