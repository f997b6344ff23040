"""Directories that a disk or a stranger damaged: opening one ends in what was there, or in an error that names it."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError, Fatal, TaskDiverged
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import Assurance
from pipeline.sync import kept
from pipeline.sync.signer import Signer
from pipeline.sync.signer_guard import SignerGuard
from pipeline.testing.suite import TEST_SUITES
from tests.fuzz.mutations import HURTS, LENGTHS, hurt

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))  # before the helpers that live there

from sync_net import Net, key_of

REFUSED = (ConfigError, Fatal, TaskDiverged)
Pairs = tuple[tuple[bytes, bytes], ...]


@cache
def synchronized() -> tuple[Net, Pairs]:
    """A net after two rounds, and its synchronizer's directory."""
    net, disk = Net(shards=2), MemoryKeyValue()
    names = [f"n{number}" for number in range(6)]
    sync = net.synchronizer(disk)
    net.fund(dict.fromkeys(names, 100))
    net.run(sync)
    for name in names:
        net.pay(name, dict.fromkeys(names, 1))
    net.run(sync)
    return net, tuple(disk.scan(b"", b"\xff\xff", 1 << 20))


def damaged(data: st.DataObject, pairs: Pairs, prefixes: tuple[bytes, ...]) -> MemoryKeyValue:
    """A copy where one value or one key is hurt."""
    numbers = st.integers(0, 2**31)
    targets = [(key, value) for key, value in pairs if key.startswith(prefixes)]
    key, value = data.draw(st.sampled_from(targets))
    how = data.draw(st.sampled_from(HURTS))
    first, second = data.draw(numbers), data.draw(numbers)
    few, length = data.draw(st.binary(min_size=1, max_size=8)), data.draw(st.sampled_from(LENGTHS))
    kv = MemoryKeyValue()
    kv.write(dict(pairs), sync=True)
    if data.draw(st.booleans()):
        kv.write({key: hurt(value, how, first, second, few, length)}, sync=True)
    else:
        place = hurt(key[1:], how, first, second, few, length)[:64]
        kv.write({key: None, key[:1] + place: value}, sync=True)
    return kv


def holds(action: Callable[[], object]) -> bool:
    message = ""
    try:
        action()
    except REFUSED as error:
        message = str(error)
    assert "\n" not in message
    return not message


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_directory_of_a_synchronizer_is_refused_or_signs_for_the_same_state(data: st.DataObject) -> None:
    net, pairs = synchronized()
    kv = damaged(data, pairs, (b"round", b"h", b"s", b"c"))
    opened: list[kept.Kept] = []
    if holds(lambda: opened.append(kept.load(kv, net.chain))):
        sound = MemoryKeyValue()
        sound.write(dict(pairs), sync=True)
        honest, found = kept.load(sound, net.chain).ledger, opened[0].ledger
        # Without `round` it is an empty directory, which is rebuilt from the log.
        assert found.round == -1 or (found.tree.root, found.heads) == (honest.tree.root, honest.heads)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_memory_of_a_signer_is_refused_or_signs_nothing_twice(data: st.DataObject) -> None:
    net, pairs = synchronized()
    kv = damaged(data, pairs, (b"g/",))
    guard = SignerGuard(net.chain, net.log, kv, Signer(key_of("attestor")), InlineVerifier(TEST_SUITES))
    sound = MemoryKeyValue()
    sound.write(dict(pairs), sync=True)
    ledger = kept.load(sound, net.chain).ledger
    if holds(guard.recover):
        holds(lambda: guard.open_proposal(ledger.round, ledger.checkpoint_hash))


@pytest.mark.parametrize("key", [b"g/next", b"g/signed"])
@pytest.mark.parametrize("value", [b"", b"x", bytes(7), bytes(9)])
def test_cut_values_of_a_signers_memory_are_damage(key: bytes, value: bytes) -> None:
    net, pairs = synchronized()
    names = [name for name, _ in pairs if name.startswith(key)]
    assert names, [name for name, _ in pairs if name.startswith(b"g")]
    kv = MemoryKeyValue()
    kv.write({**dict(pairs), names[0]: value}, sync=True)
    guard = SignerGuard(net.chain, net.log, kv, Signer(key_of("attestor")), InlineVerifier(TEST_SUITES))
    with pytest.raises(Fatal, match="local memory is damaged"):
        guard.recover()


def test_a_cut_head_in_a_signers_memory_is_damage() -> None:
    net, pairs = synchronized()
    kv = MemoryKeyValue()
    kv.write({**dict(pairs), **{key: value[:-1] for key, value in pairs if key.startswith(b"g/head/")}}, sync=True)
    sync = net.synchronizer(kv)
    net.fund({"n0": 1})
    with pytest.raises(Fatal, match="local memory is damaged"):
        net.run(sync)
    assert all(checkpoint.assurance is Assurance.HEADERS for checkpoint, _ in net.rounds())
