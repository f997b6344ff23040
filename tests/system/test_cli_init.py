"""`init` and `keygen`."""

import os
import stat
from pathlib import Path

import pytest
from command_line import CommandLine

from pipeline.cli.names import NameBook, read_demo_seed
from pipeline.client.trust import load_trust
from pipeline.config import Config, load_config
from pipeline.crypto.addresses import format_address
from pipeline.crypto.keystore import load_key
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from pipeline.node.bootstrap import new_chain
from pipeline.node.init import create_directory
from pipeline.node.layout import NodeLayout


def test_makes_everything_that_a_node_needs(cli: CommandLine, tmp_path: Path) -> None:
    made = cli.ok("init", tmp_path / "l", "--shards", 3, "--name", "Hanse")
    layout = NodeLayout(tmp_path / "l")
    chain = layout.chain()
    assert chain.genesis.name == "Hanse"
    assert chain.genesis.shards == 3
    assert chain.chain_id.hex() in made.out
    assert "not encrypted" in made.err
    assert load_trust(layout.trust).chain_id == chain.chain_id
    assert load_config(layout.config) == Config()
    assert len(read_demo_seed(layout)) == 32
    assert {p.name for p in (tmp_path / "l" / "shards").iterdir()} == {"0", "1", "2"}
    book = NameBook(layout.names)
    treasury = book.find("treasury")
    book.close()
    assert treasury is not None
    assert treasury.address == chain.genesis.treasury


def test_init_as_json(cli: CommandLine, tmp_path: Path) -> None:
    (made,) = cli.ok("init", tmp_path / "l", "--shards", 1, "--json").objects()
    assert made["chain_id"] == NodeLayout(tmp_path / "l").chain().chain_id.hex()
    assert made["shards"] == 1


def test_secrets_are_private(fresh: Path) -> None:
    assert stat.S_IMODE((fresh / "keys").stat().st_mode) == 0o700
    for file in (fresh / "keys").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_default_settings_are_what_the_file_says(fresh: Path, tmp_path: Path) -> None:
    text = (fresh / "hauptbuch.toml").read_text()
    uncommented = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    (tmp_path / "all.toml").write_text(uncommented)
    loaded = load_config(tmp_path / "all.toml")
    assert loaded.model_copy(update={"sync": Config().sync}) == Config()
    assert loaded.sync.model_copy(update={"assurance": None}) == Config().sync


def test_passphrase_encrypts_all_keys(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAUPTBUCH_PASSPHRASE", "open sesame")
    made = cli.ok("init", tmp_path / "l", "--shards", 1)
    assert "not encrypted" not in made.err
    layout = NodeLayout(tmp_path / "l")
    assert load_key(layout.key("treasury"), "open sesame", STANDARD_SUITES).suite_id == 2
    monkeypatch.delenv("HAUPTBUCH_PASSPHRASE")
    refused = cli("send", tmp_path / "l", "--from", "treasury", "--to", "treasury", "--amount", 1)
    assert refused.code == 2
    assert "wrong passphrase" in refused.error


def test_init_says_who_decides_alone(cli: CommandLine, tmp_path: Path) -> None:
    made = cli.ok("init", tmp_path / "l", "--shards", 1)
    assert "one operator key governs (1 of 1), any one attestor key signs state roots (1 of 1)" in made.err


def test_a_wrong_or_missing_passphrase_says_what_to_set(
    cli: CommandLine, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAUPTBUCH_PASSPHRASE", "open sesame")
    told = cli.ok("keygen", fresh, "eve").err
    assert str(fresh / "keys" / "eve.json") in told
    assert "the passphrase can't be recovered" in told
    assert "--to eve" in told
    refused = cli("send", fresh, "--from", "eve", "--to", "eve", "--amount", 1)
    assert (refused.code, "unset HAUPTBUCH_PASSPHRASE" in refused.error) == (2, True), "other keys are in the clear"
    for secret, word in (("", "none is set; set HAUPTBUCH_PASSPHRASE"), ("x", "under, or restore a backup")):
        with pytest.raises(ConfigError, match=word):
            load_key(fresh / "keys" / "eve.json", secret, STANDARD_SUITES)


def test_an_empty_directory_is_taken(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    cli.ok("init", tmp_path / "l", "--shards", 1)
    assert (tmp_path / "l" / "genesis.avro").is_file()


def test_never_touches_what_is_there(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "mine").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target, word in (("l", "not empty"), ("file", "not a directory"), ("link", "not a directory")):
        refused = cli("init", tmp_path / target, "--shards", 1)
        assert refused.code == 2
        assert word in refused.error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "l", "link"]
    assert (tmp_path / "l" / "mine").read_text() == "precious"


def test_leaves_nothing_where_it_fails(tmp_path: Path) -> None:
    def fail(layout: NodeLayout, chain: object) -> None:
        assert layout.genesis.is_file()
        raise OSError(28, "No space left on device")

    new = new_chain(STANDARD_SUITES, "x", 1, 0)
    with pytest.raises(ConfigError, match="No space left"):
        create_directory(tmp_path / "l", new, "", STANDARD_SUITES, fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--shards", 0), "--shards must be 1 to 1000, not 0"),
        (("--shards", -1), "--shards must be 1 to 1000, not -1"),
        (("--shards", 1001), "--shards must be 1 to 1000, not 1001"),
        (("--shards", 1, "--partitions", 0), "--partitions must be 1 (--shards) to 1000, not 0"),
        (("--shards", 3, "--partitions", 2), "--partitions must be 3 (--shards) to 1000, not 2"),
        (("--shards", 3, "--partitions", 1001), "not 1001"),
        (("--shards", 1, "--kafka", ""), "--kafka is empty"),
        (("--shards", 1, "--kafka", "localhost"), "host:port"),
        (("--shards", 1, "--name", "a\x1b[31m"), "--name has characters"),
        (("--shards", 1, "--name", "a\udcff"), "--name has characters"),
        (("--shards", "x"), "--shards"),
        ((), "--shards"),
        (("--shards", 1, "--name", "n" * 65), "64 bytes"),
    ],
)
def test_refuses_what_can_not_be(cli: CommandLine, tmp_path: Path, arguments: tuple[object, ...], word: str) -> None:
    refused = cli("init", tmp_path / "l", *arguments)
    assert refused.code == 2
    assert word in refused.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/version").exists(), reason="needs a place not to be written")
def test_says_where_it_can_not_write(cli: CommandLine) -> None:
    refused = cli("init", "/proc/nowhere/l", "--shards", 1)
    assert refused.code == 2
    assert "can't be made" in refused.error


def test_seed_demo_gives_the_same_keys_each_time(cli: CommandLine, tmp_path: Path) -> None:
    treasuries = []
    for name in ("one", "two"):
        made = cli.ok("init", tmp_path / name, "--shards", 1, "--seed-demo")
        assert "public seed" in made.err
        treasuries.append(NodeLayout(tmp_path / name).chain().genesis.treasury)
    assert treasuries[0] == treasuries[1]


def test_keygen_names_an_account(cli: CommandLine, fresh: Path) -> None:
    (made,) = cli.ok("keygen", fresh, "alice", "--json").objects()
    assert made["suite"] == "ML-DSA-65"
    key = load_key(fresh / "keys" / "alice.json", "", STANDARD_SUITES)
    book = NameBook(fresh / "names.sqlite")
    found = book.find("alice")
    book.close()
    assert found is not None
    assert format_address(found.address) == made["address"]
    assert key.suite_id == 2
    again = cli("keygen", fresh, "alice")
    assert again.code == 2
    assert "taken" in again.error


@pytest.mark.parametrize("suite", ["ML-DSA-44", "ml-dsa-87", "SLH-DSA-SHA2-128s"])
def test_keygen_knows_all_suites(cli: CommandLine, fresh: Path, suite: str) -> None:
    made = cli.ok("keygen", fresh, "bob", "--suite", suite)
    assert made.out.startswith("bob hb1")
    assert "not encrypted" in made.err


def test_keygen_overwrites_no_key(cli: CommandLine, fresh: Path) -> None:
    kept = fresh / "keys" / "alice.json"
    kept.write_text("precious")
    refused = cli("keygen", fresh, "alice")
    assert refused.code == 2
    assert "exists already" in refused.error
    assert kept.read_text() == "precious"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "ä", "x" * 65, "treasury"])
def test_keygen_refuses_names(cli: CommandLine, fresh: Path, name: str) -> None:
    before = sorted(p.name for p in (fresh / "keys").iterdir())
    assert cli("keygen", fresh, name).code == 2
    assert sorted(p.name for p in (fresh / "keys").iterdir()) == before


def test_keygen_refuses_an_unknown_suite(cli: CommandLine, fresh: Path) -> None:
    refused = cli("keygen", fresh, "bob", "--suite", "RSA")
    assert refused.code == 2
    assert "ML-DSA-65" in refused.error
