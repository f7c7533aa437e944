"""The graph of items: ties against a naive walk, weights that tell a taste from chance, odd graphs that do no harm."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graphs import AUTHORS, BOOKS, N, data, graph, items, readers

from isthmus.data.graph_notes import graph_notes
from isthmus.data.sequences import Histories
from isthmus.encode.embed import EmbedSettings, GraphEncoder
from isthmus.encode.graph import HUB, Graph, Neighbours
from isthmus.encode.verbalise import entity_name, told_items, verbalise
from isthmus.errors import DataError, InputError
from isthmus.model.base import Features, TrainingData
from isthmus.model.graph import GraphContent
from isthmus.testing import check_method

Triples = list[tuple[str, str, str]]


def a_graph(triples: Triples, links: list[tuple[str, str]]) -> tuple[Graph, pl.DataFrame]:
    edges = pl.DataFrame(triples, schema=dict.fromkeys(("head", "relation", "tail"), pl.String), orient="row")
    linked = pl.DataFrame(
        [("p", item, entity) for item, entity in links],
        schema=dict.fromkeys(("platform", "item", "entity"), pl.String),
        orient="row",
    )
    return Graph(edges, linked), pl.DataFrame({"platform": ["p"] * 4, "item": ["0", "1", "2", "3"]})


def naive(triples: Triples, links: list[tuple[str, str]]) -> dict[tuple[int, str, str], float]:
    """Walk one and two edges from each item, by hand."""
    triples = sorted({t for t in triples if t[0] != t[2]})
    near: dict[str, set[str]] = defaultdict(set)
    for head, _, tail in triples:
        near[head].add(tail)
        near[tail].add(head)
    found: dict[tuple[int, str, str], float] = defaultdict(float)
    own = defaultdict(set)
    for item, entity in set(links):
        own[int(item)].add(entity)
        found[int(item), "itself", entity] = 1.0
    for item, entities in own.items():
        for entity in entities:
            for head, relation, tail in triples:
                if head == entity:
                    found[item, relation, tail] += 1.0
                if tail == entity:
                    found[item, f"^{relation}", head] += 1.0
        close = {end for entity in entities for end in near[entity]}
        for middle in close:
            for end in near[middle] if len(near[middle]) <= HUB else ():
                if end not in close | entities:
                    found[item, "two steps", end] += 1.0 / len(near[middle])
    return {key: min(value, 1.0) if key[1] == "two steps" else value for key, value in found.items()}


NAMES = st.sampled_from("abcdef")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.sampled_from(["by", "as"]), NAMES), max_size=14),
    st.lists(st.tuples(st.sampled_from("0123"), NAMES), max_size=6),
)
def test_ties_are_those_of_a_naive_walk(triples: Triples, links: list[tuple[str, str]]) -> None:
    made, table = a_graph(triples, links)
    ties = made.neighbours(table)
    names = made.entities.to_list()
    found: dict[tuple[int, str, str], float] = defaultdict(float)
    for row, kind, entity, value in zip(ties.rows, ties.relation, ties.entity, ties.value, strict=True):
        found[int(row), ties.relations[kind], names[entity]] += float(value)
    wanted = naive(triples, links)
    assert set(found) == set(wanted)
    assert all(found[key] == pytest.approx(value, abs=1e-5) for key, value in wanted.items())


def test_idf_counts_items_and_ties_are_taken_and_added() -> None:
    ties = graph().neighbours(items())
    names = graph().entities.to_list()
    df = ties.idf()[names.index("author0")]
    assert df == pytest.approx(np.log((1 + N) / (1 + BOOKS)), rel=1e-5)  # by one edge; two steps lead to books
    first, rest = np.arange(10, dtype=np.int32), np.arange(10, N, dtype=np.int32)
    even = np.ones(len(ties.relations), np.float32)
    again = (ties.take(first) + ties.take(rest)).matrix(even)
    assert (again != ties.matrix(even)).nnz == 0


def test_a_new_item_is_tied_by_its_attribute_where_no_link_names_it() -> None:
    told = pl.DataFrame({"platform": ["shop"], "item": ["new"], "attributes": ['{"entity": "book3"}']})
    ties = graph().neighbours(told)
    assert "author0" in graph().entities.gather(ties.entity).to_list()
    assert graph().neighbours(told.with_columns(attributes=pl.lit(None, pl.String))).rows.size == 0


def test_the_method_keeps_the_contract_with_and_without_learned_weights() -> None:
    for learned in (True, False):
        check_method(lambda chosen: GraphContent({"learned": learned, **chosen}), data())  # noqa: B023


def score_of_unmet(method: GraphContent) -> float:
    """Return how often the author's unmet book comes first among all unmet books."""
    unmet = np.arange(BOOKS - 1, N, BOOKS)
    asked = [[author * BOOKS, author * BOOKS + 1] for author in range(AUTHORS)]
    scores = method.score(Histories.of(asked))[:, unmet]
    return float(np.mean(scores.argmax(axis=1) == np.arange(AUTHORS)))


def test_it_finds_the_new_book_of_a_known_author_and_learns_which_relation_tells() -> None:
    known = data()
    method = GraphContent().fit(known)
    assert isinstance(method, GraphContent)
    weights = dict(zip(known.features.graph.relations, method.weights, strict=True))  # type: ignore[union-attr]
    assert 1.1 < weights["author"] < 20
    assert 0 <= weights["publisher"] < 0.9
    assert score_of_unmet(method) == 1.0
    even = GraphContent({"learned": False}).fit(known)
    assert isinstance(even, GraphContent)
    assert (even.weights == 1).all()


def test_too_few_people_leave_all_relations_alike() -> None:
    known = data()
    few = TrainingData(readers(5), known.target, N, 0, known.features, dated=False)
    method = GraphContent().fit(few)
    assert isinstance(method, GraphContent)
    assert (method.weights == 1).all()


def test_an_item_without_ties_is_scored_zero_and_no_graph_is_said() -> None:
    ties = graph().neighbours(items(N + 1))
    longer = TrainingData(readers(), np.arange(N + 1, dtype=np.int32), N + 1, 0, Features(graph=ties), dated=False)
    scores = GraphContent().fit(longer).score(Histories.of([[0, 1]]))
    assert scores[0, N] == 0 < scores[0, 2]
    with pytest.raises(InputError, match="edges and links"):
        GraphContent().fit(TrainingData(readers(), np.arange(N, dtype=np.int32), N, 0))


def test_odd_graphs_are_counted_and_harmless() -> None:
    triples = [("a", "by", "x"), ("b", "by", "x"), ("a", "by", "a"), ("u", "as", "v"), ("a", "only", "z")]
    made, table = a_graph(triples, [("0", "a"), ("1", "b"), ("2", "lost"), ("9", "b")])
    notes = graph_notes(made.edges, made.links, table)
    assert notes["relations"] == {"as": 1, "by": 3, "only": 1}
    assert notes["single_edge_relations"] == ["as", "only"]
    assert (notes["self_loops"], notes["dangling_edges"], notes["linked_items"]) == (1, 1, 3)
    assert (notes["links_without_item"], notes["links_without_edge"]) == (1, 1)
    ties = made.neighbours(table)
    loops = ties.relation == ties.relations.index("by")
    assert not ((ties.rows == 0) & loops & (made.entities.gather(ties.entity) == "a").to_numpy()).any()
    assert graph_notes(made.edges.clear(), made.links.clear(), table) == {}


@pytest.mark.parametrize("how", ["factors", "transe", "distmult", "complex"])
def test_embeddings_put_books_of_one_author_together(how: str) -> None:
    if how != "factors":
        pytest.importorskip("torch_geometric")
    chosen = EmbedSettings(how=how, dim=16, epochs=60, learning_rate=0.05, batch_size=64)  # type: ignore[arg-type]
    encoder = GraphEncoder(graph(), chosen)
    vectors = encoder.encode(items(N + 1))
    assert vectors.shape == (N + 1, encoder.dim)
    assert np.allclose(np.linalg.norm(vectors[:N], axis=1), 1, atol=1e-4)
    assert not vectors[N].any()
    likeness = vectors[:N] @ vectors[:N].T
    same = np.arange(N)[:, None] // BOOKS == np.arange(N) // BOOKS
    same_but = same & ~np.eye(N, dtype=bool)
    assert likeness[same_but].mean() > likeness[~same].mean() + 0.1
    assert np.array_equal(vectors, GraphEncoder(graph(), chosen).encode(items(N + 1)))


def test_a_graph_without_edges_cannot_be_embedded() -> None:
    made, table = a_graph([], [("0", "a")])
    with pytest.raises(DataError, match="no edge"):
        GraphEncoder(made).encode(table)


def test_neighbourhoods_are_told_in_words_in_any_script() -> None:
    triples = [
        ("书:三体", "author", "人:刘慈欣"),
        ("书:三体", "dbo:series", "地球往事"),
        ("w:A_(film)", "basedOn", "书:三体"),
    ]
    made, table = a_graph(triples, [("0", "书:三体"), ("2", "w:A_(film)")])
    told = verbalise(made, table).to_list()
    assert told[0] == "written by 刘慈欣; part of the series 地球往事; adapted as A"
    assert told[1] == ""
    assert told[2] == "based on 三体"
    grown = told_items(made, table.with_columns(text=pl.Series(["Cult book", None, None, None])))
    assert grown["text"].to_list() == ["Cult book. " + told[0], None, told[2], None]
    assert entity_name("http://dbpedia.org/resource/Caf%C3%A9_Müller") == "Café Müller"


def test_neighbours_hold_together() -> None:
    ties = graph().neighbours(items())
    assert isinstance(ties, Neighbours)
    assert ties.rows.dtype == ties.entity.dtype == ties.relation.dtype == np.int32
    assert ties.n_items == N
