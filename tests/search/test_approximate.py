"""Approximate search: how many lists a query searches, and what that finds."""

import numpy as np
import pytest

from molspectra.search import approximate
from molspectra.search.vectors import unit

faiss = pytest.importorskip("faiss")


def clustered(count, width=32, centres=200, spread=0.4):
    generator = np.random.default_rng(3)
    middle = generator.standard_normal((centres, width), np.float32)
    return unit(
        middle[generator.integers(0, centres, count)]
        + spread * generator.standard_normal((count, width), np.float32)
    )


def recall(index, vectors, count=50):
    """Share of the 25 nearest entries of new noisy queries that are proposed."""
    generator = np.random.default_rng(4)
    found = []
    for query in vectors[generator.integers(0, len(vectors), count)]:
        noise = generator.standard_normal(len(query))
        query = (query + approximate.NOISE * noise / np.linalg.norm(noise)).astype(np.float32)
        nearest = np.argsort(-(vectors @ query))[:25]
        found.append(np.isin(nearest, approximate.candidates(index, query, 25)).mean())
    return np.mean(found)


def test_as_many_lists_are_searched_as_the_recall_needs(tmp_path):
    vectors = clustered(20_000)
    made = approximate.build([vectors[:7_000], vectors[7_000:]], tmp_path / "x.faiss")
    index = approximate.load(tmp_path / "x.faiss", made, 20_000, 32)
    assert 2 <= index.nprobe < index.nlist / 4
    assert recall(index, vectors) > approximate.RECALL - 0.02
    index.nprobe //= 2  # nearly the fewest: half of them misses more
    assert recall(index, vectors) < approximate.RECALL


def test_random_vectors_need_more_lists_than_clustered_ones():
    counts = []
    for vectors in (
        clustered(8_000),
        unit(np.random.default_rng(0).standard_normal((8_000, 32), np.float32)),
    ):
        index = faiss.index_factory(32, "IVF100,SQ8", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        counts.append(approximate.probes(index, [vectors]))
    assert counts[0] < counts[1] <= 100


def test_an_index_from_before_the_measurement_searches_half_of_its_lists(tmp_path):
    vectors = clustered(4_000)
    approximate.build([vectors], tmp_path / "x.faiss")
    index = faiss.read_index(str(tmp_path / "x.faiss"))
    index.nprobe = 1
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    loaded = approximate.load(tmp_path / "x.faiss", approximate.file_hash(tmp_path / "x.faiss"), 4_000, 32)
    assert loaded.nprobe == loaded.nlist // 2
