"""A secured cluster: every role does its work by its own user, and nothing else; and clusters that are refused."""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from processes import HAUPTBUCH
from pydantic import SecretStr
from secured import ALLOWED, Intruder, SecuredLedger, config_of, settle

from deploy.kafka.__main__ import main
from deploy.kafka.acls import allow
from deploy.kafka.cluster import KafkaCluster
from deploy.kafka.roles import Role, grants_of
from deploy.kafka.security import ADMINISTRATOR, settings_file
from pipeline.cli.processes import read_chain
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.config import KafkaConfig, KafkaSecurity, SecurityProtocol, load_config
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError, Retryable
from pipeline.ledger.chain import Chain
from pipeline.ledger.writers import shard_writer
from pipeline.log.kafka import KafkaLog, access
from pipeline.log.kafka.access import require_access
from pipeline.log.kafka.settings import admin_settings
from pipeline.log.port import Append
from pipeline.node.bootstrap import create_topics, new_chain
from pipeline.node.places import topic_prefix

pytestmark = pytest.mark.kafka

SHARDS = 2
# Who may (r)ead and (w)rite what, told once more by hand; topics in the order of their numbers.
MATRIX = """
             control relay transactions blocks receipts dead-letters checkpoints state-roots
producer     r       r     rw           r      r        -            -           r
worker       r       rw    r            rw     w        w            -           r
synchronizer r       r     r            r      -        -            rw          rw
attestor     r       r     r            r      -        -            rw          r
subscriber   -       -     -            -      -        -            -           r
auditor      r       r     r            r      r        r            r           r
operator     rw      r     r            r      r        r            r           r
"""
TOPICS, *ROWS = (line.split() for line in MATRIX.strip().splitlines())
MAY = {Role(role): dict(zip(TOPICS, letters, strict=True)) for role, *letters in ROWS}
OWN_IDS = {Role.WORKER: {"shard-0", "shard-1"}, Role.SYNCHRONIZER: {"proposer"}, Role.ATTESTOR: {"signer"}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    made = KafkaCluster.create(tmp_path_factory.mktemp("secured") / "cluster", 1, secure=True)
    try:
        made.start()
        for role in Role:
            made.add_user(role)
        yield made
    finally:
        made.remove()


def grant_all(cluster: KafkaCluster, chain: Chain) -> None:
    for role in Role:
        marks = [mark for mark, _ in allow(config_of(cluster, ADMINISTRATOR), role, grants_of(chain, role))]
        assert set(marks) == {"+"}
    last = f"{topic_prefix(chain)}.control"
    settle(lambda: Intruder(config_of(cluster, Role.OPERATOR)).read([last]), {last: ALLOWED})


@pytest.fixture(scope="module")
def chain(cluster: KafkaCluster) -> Chain:
    """Topics with a record each, and every role's rules."""
    made = new_chain(STANDARD_SUITES, "roles", SHARDS, 1, partitions=SHARDS).chain
    log = KafkaLog(config_of(cluster, ADMINISTRATOR), topic_prefix(made))
    create_topics(log, made)
    log.append([Append(TopicPartition(topic, 0), None, b"x") for topic in Topic])
    log.close()
    grant_all(cluster, made)
    return made


@pytest.mark.parametrize("role", Role)
def test_a_role_reads_and_writes_its_topics_and_no_others(cluster: KafkaCluster, chain: Chain, role: Role) -> None:
    topics = {f"{topic_prefix(chain)}.{name}": letters for name, letters in MAY[role].items()}
    intruder = Intruder(config_of(cluster, role))
    denied = "TOPIC_AUTHORIZATION_FAILED"
    assert intruder.read(topics) == {name: ALLOWED if "r" in may else denied for name, may in topics.items()}
    written = {name: ALLOWED if "w" in may else denied for name, may in topics.items()}
    assert intruder.write(topics) == written
    prefix, signer = chain.chain_id.hex()[:16], chain.genesis.attestors[0].key_id.hex()
    ids = {name: f"{prefix}-{name}" for name in ("shard-0", "shard-1", "proposer")}
    ids |= {"signer": f"{prefix}-signer-{signer}", "another signer": f"{prefix}-signer-{'ab' * 32}", "any": "any"}
    opened = {name: intruder.open_writer(writer_id) for name, writer_id in ids.items()}
    own = OWN_IDS.get(role, set())
    assert opened == {name: ALLOWED if name in own else "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" for name in ids}
    if own:
        assert intruder.transact(ids[min(own)], topics) == written


@pytest.mark.parametrize("role", Role)
def test_a_role_joins_no_group_and_changes_nothing(cluster: KafkaCluster, chain: Chain, role: Role) -> None:
    intruder, prefix = Intruder(config_of(cluster, role)), topic_prefix(chain)
    answers = intruder.administer(f"{prefix}.blocks")
    assert answers.pop("grant") == "CLUSTER_AUTHORIZATION_FAILED"
    assert answers.pop("create") in ("TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED")
    if role is Role.SUBSCRIBER:  # which does not even see who leads the topic
        assert answers.pop("cut") == "_NOENT"
    assert set(answers.values()) == {"TOPIC_AUTHORIZATION_FAILED"}
    if "r" in MAY[role]["transactions"]:
        joined = intruder.join(f"{prefix}-workers", f"{prefix}.transactions")
        assert joined == (ALLOWED if role is Role.WORKER else "GROUP_AUTHORIZATION_FAILED")


def test_the_log_says_who_is_refused_what(cluster: KafkaCluster, chain: Chain) -> None:
    log = KafkaLog(config_of(cluster, Role.AUDITOR), topic_prefix(chain))
    try:
        with pytest.raises(ConfigError, match="Kafka refuses this client"):
            log.append([Append(TopicPartition(Topic.TRANSACTIONS, 0), None, b"x")])
        with pytest.raises(ConfigError, match="writer mine: Kafka refuses this client"):
            log.writer("mine")
    finally:
        log.close()
    log = KafkaLog(config_of(cluster, Role.SUBSCRIBER), topic_prefix(chain))
    try:
        with pytest.raises(ConfigError, match="blocks: Kafka refuses this client") as caught:
            log.read(TopicPartition(Topic.BLOCKS, 0), 0, 1, 1)
        assert "python -m deploy.kafka acl" in str(caught.value)
        assert log.read(TopicPartition(Topic.STATE_ROOTS, 0), 0, 1, 1)
    finally:
        log.close()


def test_a_commit_that_is_refused_is_not_tried_again(cluster: KafkaCluster, chain: Chain) -> None:
    log = KafkaLog(config_of(cluster, Role.WORKER), topic_prefix(chain))
    mine = Append(TopicPartition(Topic.BLOCKS, 0), None, b"x")
    try:
        for topic in (Topic.TRANSACTIONS, Topic.STATE_ROOTS):
            writer = log.writer(shard_writer(chain.chain_id, 0))
            for appends in ([mine], [mine, Append(TopicPartition(topic, 0), None, b"x")]):
                writer.begin_commit(appends)
                with (
                    pytest.raises(ConfigError, match="Kafka refuses this client") if len(appends) > 1 else nullcontext()
                ):
                    settle(lambda writer=writer: writer.poll_commit() is not None, True)
    finally:
        log.close()


def test_every_role_does_its_work_by_its_own_user(cluster: KafkaCluster, tmp_path: Path) -> None:
    ledger = SecuredLedger(tmp_path, cluster, shards=SHARDS)
    try:
        grant_all(cluster, read_chain(ledger.directory / "genesis.avro"))
        ledger.start_as(Role.WORKER, "worker")
        ledger.start_as(Role.SYNCHRONIZER, "sync")
        ledger.start_as(Role.ATTESTOR, "attest", "--key", ledger.directory / "keys" / "attestor.json")
        rows = "".join(f"payer{i % 5},payee{i % 7},{i + 1}\n" for i in range(40))
        (tmp_path / "payments.csv").write_text("from,to,amount\n" + rows)
        columns = ("--from", "from", "--to", "to", "--amount", "amount", "--json")
        done = json.loads(ledger.run_as(Role.PRODUCER, "load", ledger.directory, tmp_path / "payments.csv", *columns))
        assert (done["transactions"], done["all_ok"]) == (40, True)
        assert done["crossed"] > 0
        ledger.run_as(Role.PRODUCER, "send", ledger.directory, "--from", "payee1", "--to", "payee2", "--amount", "1")
        verdict = ledger.run_as(Role.AUDITOR, "audit", ledger.directory)
        assert "\nall checks hold" in verdict
        subscriber = tmp_path / "subscriber"
        subscriber.mkdir()
        for name in ("genesis.avro", "trust.json", "hauptbuch.toml"):
            shutil.copy(ledger.directory / name, subscriber)
        roots = [
            json.loads(text) for text in ledger.run_as(Role.SUBSCRIBER, "roots", subscriber, "--json").splitlines()
        ]
        assert {root["shard"] for root in roots} == set(range(SHARDS))
        assert {path.name for path in subscriber.iterdir()} == {"genesis.avro", "trust.json", "hauptbuch.toml"}
        refused = ledger.run_as(Role.SUBSCRIBER, "audit", ledger.directory, code=2)
        assert refused.count("\n") == 1
        assert "Kafka refuses this client" in refused
    finally:
        ledger.close()


def test_a_cluster_elsewhere_is_used_where_it_does_not_let_everyone_in(
    cluster: KafkaCluster, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "is_loopback", lambda host: False)
    for user in (ADMINISTRATOR, Role.WORKER, Role.SUBSCRIBER):
        require_access(config_of(cluster, user))
    open_to_all = KafkaConfig(bootstrap=bootstrap)
    for identity in (KafkaSecurity(), KafkaSecurity(protocol=SecurityProtocol.SSL, certificate_location="mine")):
        # The second can't connect so, but is not anonymous: the brokers are asked whether they have an authorizer.
        named = open_to_all.model_copy(update={"security": identity})
        monkeypatch.setattr(access, "admin_settings", lambda _: admin_settings(open_to_all))
        with pytest.raises(ConfigError, match="lets everyone write everything, and is not on loopback"):
            require_access(named)
        require_access(named.model_copy(update={"insecure": True}))


def test_who_is_not_let_in_hears_it_soon_and_sees_no_password(
    cluster: KafkaCluster, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = config_of(cluster, Role.WORKER)
    cases = {
        "Authentication failed": {"password": SecretStr("geheim")},
        "certificate verify failed": {"ca_location": None},
        "supported mechanisms: SCRAM-SHA-512": {"mechanism": "PLAIN"},
    }
    for reason, change in cases.items():
        security = known.security.model_copy(update=change)
        with pytest.raises(ConfigError, match="no way into Kafka") as caught:
            require_access(known.model_copy(update={"security": security}))
        assert reason in str(caught.value)
        assert "geheim" not in str(caught.value)
    monkeypatch.setattr(access, "_ANSWER_S", 1.0)
    with pytest.raises(Retryable, match="no answer from Kafka"):
        require_access(KafkaConfig(bootstrap=cluster.bootstrap))
    settings = tmp_path / "wrong.toml"
    text = settings_file(cluster.root, Role.WORKER).read_text()
    settings.write_text(re.sub(r"(?m)^password = .*$", 'password = "geheim"', text))
    settings.chmod(0o600)
    (tmp_path / "genesis.avro").write_bytes(chain.genesis.to_record())
    options = ("--genesis", tmp_path / "genesis.avro", "--kafka", cluster.bootstrap, "--data", tmp_path / "data")
    command = [*HAUPTBUCH, "--debug", "worker", *map(str, options), "--config", str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no way into Kafka" in done.stderr
    assert "geheim" not in done.stdout + done.stderr


def test_rules_are_set_once_and_can_be_taken_away(cluster: KafkaCluster, chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "genesis.avro").write_bytes(chain.genesis.to_record())

    def acl(*more: str) -> list[str]:
        options = ["acl", "--genesis", str(tmp_path / "genesis.avro"), "--role", "subscriber", "--user", "guest"]
        out = io.StringIO()
        with redirect_stdout(out):
            assert main([*options, "--config", str(settings_file(cluster.root, ADMINISTRATOR)), *more]) == 0
        return [line[0] for line in out.getvalue().splitlines()]

    guest = cluster.add_user("guest").read_text()
    topic = f"{topic_prefix(chain)}.state-roots"
    assert acl("--dry-run") == [" ", " "]
    settle(lambda: Intruder(config_of(cluster, "guest")).read([topic]), {topic: "TOPIC_AUTHORIZATION_FAILED"})
    assert [acl(), acl()] == [["+", "+"], ["=", "="]]
    settle(lambda: Intruder(config_of(cluster, "guest")).read([topic]), {topic: ALLOWED})
    assert [acl("--revoke"), acl("--revoke")] == [["-", "-"], []]
    settle(lambda: Intruder(config_of(cluster, "guest")).read([topic]), {topic: "TOPIC_AUTHORIZATION_FAILED"})
    before = config_of(cluster, "guest")
    assert cluster.add_user("guest").read_text() != guest
    with pytest.raises(ConfigError, match="no way into Kafka"):
        require_access(before)
    errors = io.StringIO()
    with redirect_stderr(errors):
        assert (
            main(
                [
                    "acl",
                    "--genesis",
                    str(tmp_path / "genesis.avro"),
                    "--role",
                    "subscriber",
                    "--user",
                    "guest",
                    "--config",
                    str(settings_file(cluster.root, Role.WORKER)),
                ]
            )
            == 2
        )
    assert "Kafka refuses this client" in errors.getvalue()


def test_the_command_finds_a_cluster_that_runs(cluster: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--data", str(cluster.root))
    assert main(["up", "--secure", *place]) == 0
    told = capsys.readouterr()
    assert told.out == f"{cluster.bootstrap}\n"
    assert told.err == f"administrator: {settings_file(cluster.root, ADMINISTRATOR)}\n"
    assert main(["describe", *place]) == 0
    assert capsys.readouterr().out.startswith(f"broker 1 {cluster.bootstrap} running ")
    assert main(["user", "visitor", *place]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert load_config(path).kafka.security.username == "visitor"


def test_secrets_of_the_cluster_are_for_its_owner_alone(cluster: KafkaCluster) -> None:
    assert cluster.root.stat().st_mode & 0o077 == 0
    secrets = [*(cluster.root / "clients").iterdir(), *(cluster.root / "tls").glob("broker-*.pem")]
    assert len(secrets) > len(Role)
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
    with pytest.raises(ConfigError, match="can't be a user"):
        cluster.add_user("../admin")
