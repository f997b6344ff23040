"""What reaches people: key files, trust files, settings, payment files and receipts that somebody prepared."""

import json
from pathlib import Path

import pytest
from lying import Lie

from pipeline.audit.findings import FindingKind
from pipeline.cli.csv_records import MAX_RECORD_BYTES, Reject
from pipeline.cli.csv_source import Columns, CsvSource, Payment
from pipeline.client.trust import load_trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.config.sources import load_config
from pipeline.crypto.addresses import format_address, parse_address
from pipeline.crypto.keystore import KdfCost, load_key, save_key
from pipeline.errors import ConfigError
from pipeline.ledger.receipts import ReceiptChunk
from pipeline.log.port import Append
from pipeline.testing.suite import TEST_SUITES, DeterministicSuite
from pipeline.testing.world import Actor

CHEAP = KdfCost(2, 8, 1)


def saved(path: Path, name: str) -> Path:
    save_key(path, Actor.of(name).key, "secret", TEST_SUITES, CHEAP)
    return path


def test_a_key_file_with_another_address_or_key_is_refused(tmp_path: Path) -> None:
    """Whoever can write the file can't make its owner receive to, or sign for, somebody else."""
    mine, other = (json.loads(saved(tmp_path / name, name).read_bytes()) for name in ("mine", "other"))
    for fields in (("address",), ("public_key",), ("address", "public_key"), ("ciphertext", "nonce"), ("kdf",)):
        path = tmp_path / "-".join(fields)
        path.write_text(json.dumps({**mine, **{field: other[field] for field in fields}}))
        path.chmod(0o600)
        with pytest.raises(ConfigError):
            load_key(path, "secret", TEST_SUITES)
    assert load_key(tmp_path / "mine", "secret", TEST_SUITES).public_key == Actor.of("mine").key.public_key


@pytest.mark.parametrize("cost", [{"n": 2**40}, {"r": 2**30}, {"p": 2**30}, {"n": 3}, {"n": 0}])
def test_a_key_file_can_not_ask_for_all_memory(tmp_path: Path, cost: dict[str, int]) -> None:
    path = saved(tmp_path / "a.key", "a")
    document = json.loads(path.read_bytes())
    document["kdf"] |= cost
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"scrypt|not a number"):
        load_key(path, "secret", TEST_SUITES)


def test_the_test_suite_is_no_suite_of_a_ledger() -> None:
    """Its signatures can be made by anybody; genesis, key files and proofs outside tests refuse it."""
    from pipeline.crypto.suites import STANDARD_SUITES  # noqa: PLC0415 - what people run with

    assert STANDARD_SUITES.get(DeterministicSuite().suite_id) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("suite", 256), ("suite", -1), ("suite", True), ("suite", 2**70), ("public_key", "zz"), ("public_key", 5)],
)
def test_a_trust_file_of_nonsense_is_one_line(tmp_path: Path, field: str, value: object) -> None:
    from pipeline.client.trust import Trust  # noqa: PLC0415 - to make the honest file
    from pipeline.ledger.checkpoints import Assurance  # noqa: PLC0415

    honest = json.loads(Trust.of(Lie().net.chain, Assurance.HEADERS).to_json())
    honest["attestors"][0][field] = value
    path = tmp_path / "trust.json"
    path.write_text(json.dumps(honest))
    with pytest.raises(ConfigError, match=r"trust\.json can't be used") as caught:
        load_trust(path)
    assert "\n" not in str(caught.value)


def test_a_look_alike_address_is_no_address() -> None:
    """One character exchanged, two swapped, mixed case, another alphabet's letters."""
    text = format_address(Actor.of("payee").address)
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    for at in range(3, len(text), 7):
        other = alphabet[(alphabet.index(text[at]) + 1) % 32]
        with pytest.raises(ConfigError):
            parse_address(text[:at] + other + text[at + 1 :])
    for fake in (text.replace("hb1", "bc1"), text[:-1] + text[-1].upper() + "", "\u041d" + text[1:], text + " "):
        if fake != text:
            with pytest.raises(ConfigError):
                parse_address(fake)


def test_a_payment_file_can_not_command_a_terminal_or_hide_a_row(tmp_path: Path) -> None:
    """Escape sequences, invisible and reversing characters are no names; a field never swallows the rows after it."""
    hostile = ["\x1b[2J", "a\u202eb", "a\u200bb", "\x07", "a\x00b", "\udcff"]
    rows = [f"{name},bob,1" for name in hostile]
    text = "from,to,amount\n" + "\n".join(rows) + '\nalice,bob,1\n"open,bob,1\nalice,bob,2\n'
    path = tmp_path / "payments.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    found = list(CsvSource(path, Columns("from", "to", "amount")).rows())
    rejects = [row for row in found if isinstance(row, Reject)]
    assert [row.payer for row in found if isinstance(row, Payment)] == ["alice"]
    assert len(rejects) >= len(hostile) + 1
    assert all(row.reason.isprintable() for row in rejects)


def test_a_packed_payment_file_takes_bounded_memory(tmp_path: Path) -> None:
    import gzip  # noqa: PLC0415 - beside its only use
    import tracemalloc  # noqa: PLC0415

    path = tmp_path / "bomb.csv"
    path.write_bytes(gzip.compress(b"from,to,amount\n" + b"a" * (16 * 2**20) + b"\nalice,bob,1\n"))
    assert path.stat().st_size < 40_000
    tracemalloc.start()
    found = list(CsvSource(path, Columns("from", "to", "amount")).rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * MAX_RECORD_BYTES
    assert [type(row) for row in found] == [Reject, Payment]


@pytest.mark.parametrize(
    "text",
    [
        "[kafka.librdkafka]\n'enable.idempotence' = false\n",
        "[kafka.librdkafka]\n'isolation.level' = 'read_uncommitted'\n",
        "[kafka.librdkafka]\n'auto.offset.reset' = 'latest'\n",
        "[kafka.librdkafka]\n'enable.ssl.certificate.verification' = false\n",
        "[kafka.security]\nusername = 'worker'\npassword = 'told to nobody under PLAINTEXT'\n",
        "[store]\ndurability = 'none'\n",
        "x = " + "[" * 5000,
    ],
)
def test_settings_can_not_switch_safety_off(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hauptbuch.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_receipt_that_no_block_gave_is_found_by_the_audit() -> None:
    """Whoever may write `receipts` can tell a payee what it likes; a proof under a signed root is what counts."""
    lie = Lie()
    lie.net.run()
    chunk = ReceiptChunk.from_record(lie.net.read(Topic.RECEIPTS, 0)[-1].value)
    forged = ReceiptChunk(chunk.chain_id, chunk.shard, chunk.height + 1, 0, chunk.receipts)
    lie.net.log.append([Append(TopicPartition(Topic.RECEIPTS, 0), None, forged.to_record())])
    found = {item.kind for item in lie.verdict().audit.findings}
    assert found & {FindingKind.OUTPUT_FOREIGN, FindingKind.OUTPUT_ALTERED}
