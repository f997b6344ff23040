"""The table of access rules: who may write what, and the rules' names."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from deploy.kafka.__main__ import main
from deploy.kafka.certificates import authority_file, broker_file, issue
from deploy.kafka.roles import READS, WRITES, Operation, Resource, Role, grants_of
from pipeline.codec.topics import Topic
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from pipeline.node.bootstrap import new_chain

CHAIN = new_chain(STANDARD_SUITES, "roles", 2, 1, partitions=3, attestors=2, seed=bytes(32)).chain
ID = CHAIN.chain_id.hex()[:16]
PREFIX = f"hauptbuch-{ID}"


def named(role: Role, resource: Resource, operation: Operation, signer: str = "") -> set[str]:
    signer = signer or ("1" if role is Role.ATTESTOR else "")
    grants = grants_of(CHAIN, role, signer)
    return {grant.name for grant in grants if (grant.resource, grant.operation) == (resource, operation)}


@pytest.mark.parametrize(
    ("topic", "writers"),
    [
        (Topic.CONTROL, {Role.OPERATOR}),
        (Topic.RELAY, {Role.WORKER}),
        (Topic.TRANSACTIONS, {Role.PRODUCER}),
        (Topic.BLOCKS, {Role.WORKER}),
        (Topic.RECEIPTS, {Role.WORKER}),
        (Topic.DEAD_LETTERS, {Role.WORKER}),
        (Topic.CHECKPOINTS, {Role.SYNCHRONIZER, Role.ATTESTOR}),
        (Topic.STATE_ROOTS, {Role.SYNCHRONIZER}),
    ],
)
def test_a_topic_has_its_writers_and_no_others(topic: Topic, writers: set[Role]) -> None:
    assert {role for role in Role if topic in WRITES[role]} == writers
    name = f"{PREFIX}.{topic.topic_name}"
    assert {role for role in Role if name in named(role, Resource.TOPIC, Operation.WRITE)} == writers


def test_transactions_are_for_workers_and_signers_by_their_own_ids() -> None:
    first, second = (f"{ID}-signer-{key.key_id.hex()}" for key in CHAIN.genesis.attestors)
    ids = {role: named(role, Resource.TRANSACTIONAL_ID, Operation.WRITE) for role in Role}
    assert ids[Role.WORKER] == {f"{ID}-shard-{shard}" for shard in range(3)}
    assert ids[Role.SYNCHRONIZER] == {f"{ID}-proposer"}
    assert ids[Role.ATTESTOR] == {first}
    assert not any(ids[role] for role in (Role.PRODUCER, Role.SUBSCRIBER, Role.AUDITOR, Role.OPERATOR))
    signing = named(Role.SYNCHRONIZER, Resource.TRANSACTIONAL_ID, Operation.WRITE, signer="2")
    assert signing == {f"{ID}-proposer", second}
    by_key = named(Role.ATTESTOR, Resource.TRANSACTIONAL_ID, Operation.WRITE, signer="ab" * 32)
    assert by_key == {f"{ID}-signer-{'ab' * 32}"}


def test_everyone_reads_what_it_needs_and_names_are_literal() -> None:
    assert READS[Role.SUBSCRIBER] == (Topic.STATE_ROOTS,)
    assert set(READS[Role.AUDITOR]) == set(Topic)
    for role in Role:
        assert named(role, Resource.TOPIC, Operation.READ) == {f"{PREFIX}.{topic.topic_name}" for topic in READS[role]}
        assert named(role, Resource.GROUP, Operation.DESCRIBE) == {f"{PREFIX}-reader"}
        joined = named(role, Resource.GROUP, Operation.READ)
        assert joined == ({f"{PREFIX}-workers"} if role is Role.WORKER else set())
        grants = grants_of(CHAIN, role, "1" if role is Role.ATTESTOR else "")
        assert not any("*" in grant.name for grant in grants)
        assert len(set(grants)) == len(grants)


@pytest.mark.parametrize("signer", ["", "0", "3", "99999999", "x", "ab" * 31, "²"])
def test_a_signer_that_can_not_be(signer: str) -> None:
    with pytest.raises(ConfigError, match="1 to 2"):
        grants_of(CHAIN, Role.ATTESTOR, signer)


def test_only_signers_name_one() -> None:
    with pytest.raises(ConfigError, match="leave --signer out"):
        grants_of(CHAIN, Role.WORKER, "1")
    single = new_chain(STANDARD_SUITES, "one", 1, 1, seed=bytes(32)).chain
    assert grants_of(single, Role.ATTESTOR) == grants_of(single, Role.ATTESTOR, "1")


def run(*arguments: object) -> tuple[int, str, str]:
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue(), errors.getvalue()


def test_the_command_prints_what_it_would_set_and_refuses_in_one_line(tmp_path: Path) -> None:
    genesis = tmp_path / "genesis.avro"
    genesis.write_bytes(CHAIN.genesis.to_record())
    options = ("acl", "--genesis", genesis, "--user", "p1")
    code, out, _ = run(*options, "--role", "producer", "--dry-run")
    assert code == 0
    assert f"User:p1 may write topic {PREFIX}.transactions\n" in out
    assert out.count("\n") == len(grants_of(CHAIN, Role.PRODUCER))
    for wrong, expected in (
        (("acl", "--genesis", tmp_path / "none", "--user", "p1", "--role", "worker"), "can't be read"),
        ((*options, "--role", "producer"), "kafka.bootstrap is not set"),
        (("acl", "--genesis", genesis, "--user", "*", "--role", "producer", "--kafka", "127.0.0.1:1"), "nobody's name"),
        (("user", "x", "--data", tmp_path), "holds no Kafka cluster"),
    ):
        code, out, errors = run(*wrong)
        assert (code, out, errors.count("\n")) == (2, "", 1)
        assert expected in errors


def test_private_files_are_private(tmp_path: Path) -> None:
    issue(tmp_path, [1, 2])
    assert {path.stat().st_mode & 0o777 for path in (broker_file(tmp_path, 1), broker_file(tmp_path, 2))} == {0o600}
    assert b"PRIVATE" not in authority_file(tmp_path).read_bytes()
    assert sorted(path.name for path in authority_file(tmp_path).parent.iterdir()) == [
        "broker-1.pem",
        "broker-2.pem",
        "ca.pem",
    ]
