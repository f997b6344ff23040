"""RFC 6962 lists: vectors by others, the recursive definition, and paths that must be refused."""

import base64
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import VerificationFailed
from pipeline.testing.naive_tree import naive_list_root
from pipeline.tree.rfc6962 import (
    inclusion_path,
    inclusion_paths,
    leaf_hash,
    merkle_root,
    root_from_inclusion,
    root_from_leaf_hash,
    verify_consistency,
)

VECTORS = Path(__file__).parents[1] / "vectors/merkle_rfc6962/transparency-dev-merkle-testdata.tar.gz"


def _cases(folder: str) -> list[tuple[str, dict[str, Any]]]:
    cases = []
    with tarfile.open(VECTORS) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name.startswith(f"testdata/{folder}/") and name.endswith(".json"):
                stream = archive.extractfile(member)
                assert stream is not None
                cases.append((name, json.load(stream)))
    return cases


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def _path(case: dict[str, Any]) -> list[bytes]:
    return [_bytes(step) for step in case["proof"] or []]


def test_inclusion_vectors() -> None:
    cases = _cases("inclusion")
    outcomes = []
    for name, case in cases:
        try:
            root = root_from_leaf_hash(case["leafIdx"], case["treeSize"], _bytes(case["leafHash"]), _path(case))
            refused = root != _bytes(case["root"])
        except VerificationFailed:
            refused = True
        assert refused is case["wantErr"], name
        outcomes.append(refused)
    assert outcomes.count(False) >= 5
    assert outcomes.count(True) >= 80


def test_consistency_vectors() -> None:
    outcomes = []
    for name, case in _cases("consistency"):
        sizes = case["size1"], case["size2"]
        try:
            verify_consistency(*sizes, _bytes(case["root1"]), _bytes(case["root2"]), _path(case))
            refused = False
        except VerificationFailed:
            refused = True
        assert refused is case["wantErr"], name
        outcomes.append(refused)
    assert outcomes.count(False) >= 5
    assert outcomes.count(True) >= 80


def test_root_follows_the_definition_at_every_small_size() -> None:
    leaves = [bytes([n]) * (n % 7) for n in range(70)]
    for size in range(70):
        assert merkle_root(leaves[:size]) == naive_list_root(leaves[:size])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33])
def test_every_leaf_has_a_path_and_only_that(size: int) -> None:
    leaves = [b"leaf %d" % n for n in range(size)]
    root = merkle_root(leaves)
    for index in range(size):
        path = inclusion_path(leaves, index)
        assert root_from_inclusion(index, size, leaves[index], path) == root
        with pytest.raises(VerificationFailed):
            root_from_inclusion(index, size, leaves[index], (*path, root))
        if path:
            with pytest.raises(VerificationFailed):
                root_from_inclusion(index, size, leaves[index], path[:-1])
        for other in range(size):
            if other != index:
                assert root_from_any(other, size, leaves[index], path) != root


def root_from_any(index: int, size: int, leaf: bytes, path: tuple[bytes, ...]) -> bytes | None:
    try:
        return root_from_inclusion(index, size, leaf, path)
    except VerificationFailed:
        return None


def _naive_consistency(size1: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2."""
    if size1 == len(leaves):
        return [] if whole else [naive_list_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if size1 <= split:
        return [*_naive_consistency(size1, leaves[:split], whole), naive_list_root(leaves[split:])]
    return [*_naive_consistency(size1 - split, leaves[split:], False), naive_list_root(leaves[:split])]


@given(st.integers(1, 40), st.integers(0, 20), st.data())
def test_consistency_of_grown_lists(size1: int, more: int, data: st.DataObject) -> None:
    leaves = [b"%d" % n for n in range(size1 + more)]
    old, new = merkle_root(leaves[:size1]), merkle_root(leaves)
    path = _naive_consistency(size1, leaves)
    verify_consistency(size1, len(leaves), old, new, path)
    forged = data.draw(
        st.sampled_from(
            [(old, bytes(32), path), (bytes(32), new, path), (old, new, [*path, new]), (old, new, path[:-1])]
        )
    )
    if forged != (old, new, path):
        with pytest.raises(VerificationFailed):
            verify_consistency(size1, len(leaves), *forged)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(IndexError):
        inclusion_path([b"a"], 1)
    with pytest.raises(VerificationFailed, match="no such leaf"):
        root_from_leaf_hash(-1, 3, leaf_hash(b""), [])
    with pytest.raises(VerificationFailed, match="31 bytes"):
        root_from_leaf_hash(0, 1, bytes(31), [])
    for sizes in [(0, 0), (0, 5), (3, 2)]:
        with pytest.raises(VerificationFailed, match="can't be proved"):
            verify_consistency(*sizes, bytes(32), bytes(32), [])


def test_all_paths_at_once_are_the_single_ones() -> None:
    for size in range(34):
        leaves = [bytes([index]) for index in range(size)]
        assert inclusion_paths(leaves) == [inclusion_path(leaves, index) for index in range(size)]
