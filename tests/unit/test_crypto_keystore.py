"""Key files: round trips, every byte altered, hostile parameters, modes, and writing whole or not at all."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crypto import private_file
from pipeline.crypto.addresses import address_of, format_address
from pipeline.crypto.keystore import MINIMAL_COST, STANDARD_COST, KdfCost, load_key, save_key
from pipeline.crypto.private_file import read_private
from pipeline.crypto.suites import STANDARD_SUITES, PrivateKey, SuiteSet
from pipeline.errors import ConfigError
from pipeline.testing.suite import TEST_SUITES, DeterministicSuite

QUICK = KdfCost(4, 8, 1)
SEED = bytes(range(32))


@pytest.fixture
def key() -> PrivateKey:
    return DeterministicSuite().generate(SEED)


@pytest.fixture
def path(tmp_path: Path, key: PrivateKey) -> Path:
    save_key(tmp_path / "k.key", key, "open sesame", TEST_SUITES, QUICK)
    return tmp_path / "k.key"


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("suite_id", list(TEST_SUITES))
def test_every_suite_comes_back(tmp_path: Path, suite_id: int) -> None:
    suite = TEST_SUITES[suite_id]
    made = suite.generate(None if suite_id == 0x11 else SEED)
    path = tmp_path / "some.key"
    save_key(path, made, "päss wörd", TEST_SUITES, QUICK)
    loaded = load_key(path, "päss wörd", TEST_SUITES)
    assert (loaded.suite_id, loaded.public_key, loaded.secret) == (suite_id, made.public_key, made.secret)
    assert suite.verify(made.public_key, b"m", b"c", loaded.sign(b"m", b"c"))


def test_the_file_is_private_readable_and_alone(path: Path, key: PrivateKey) -> None:
    document = json.loads(path.read_bytes())
    assert document["address"] == format_address(address_of(key.suite_id, key.public_key))
    assert (document["format"], document["version"], document["suite"]) == ("hauptbuch-key", 1, 0xFF)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]
    assert key.secret.hex() not in path.read_text()


def test_mode_does_not_depend_on_umask(tmp_path: Path, key: PrivateKey) -> None:
    before = os.umask(0o777)
    try:
        save_key(tmp_path / "k", key, "", TEST_SUITES)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600


def test_default_costs(tmp_path: Path, key: PrivateKey) -> None:
    for passphrase, cost in (("", MINIMAL_COST), ("x", STANDARD_COST)):
        save_key(tmp_path / f"k{passphrase}", key, passphrase, TEST_SUITES)
        kdf = json.loads((tmp_path / f"k{passphrase}").read_bytes())["kdf"]
        assert KdfCost(kdf["n"], kdf["r"], kdf["p"]) == cost
        assert load_key(tmp_path / f"k{passphrase}", passphrase, TEST_SUITES).secret == key.secret


def test_salt_and_nonce_are_fresh(path: Path, key: PrivateKey) -> None:
    save_key(path.with_name("other"), key, "open sesame", TEST_SUITES, QUICK)
    one, two = json.loads(path.read_bytes()), json.loads(path.with_name("other").read_bytes())
    for name in ("nonce", "ciphertext"):
        assert one[name] != two[name]
    assert one["kdf"]["salt"] != two["kdf"]["salt"]


@pytest.mark.parametrize("wrong", ["", "open sesamf", "open sesame ", "Open sesame", "\ud800"])
def test_wrong_passphrase(path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match="wrong passphrase, or the file was altered"):
        load_key(path, wrong, TEST_SUITES)


def test_composed_and_decomposed_accents_are_one_passphrase(tmp_path: Path, key: PrivateKey) -> None:
    save_key(tmp_path / "k", key, "m\u00fcnze", TEST_SUITES, QUICK)
    assert load_key(tmp_path / "k", "mu\u0308nze", TEST_SUITES).secret == key.secret


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        save_key(path, DeterministicSuite().generate(b"x" * 32), "other", TEST_SUITES, QUICK)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_directory_that_is_not_there(tmp_path: Path, key: PrivateKey) -> None:
    with pytest.raises(ConfigError, match="can't write the key file: No such file or directory"):
        save_key(tmp_path / "no" / "k", key, "", TEST_SUITES)


def test_a_failed_write_leaves_nothing(tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private_file.os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        save_key(tmp_path / "k", key, "", TEST_SUITES)
    assert os.listdir(tmp_path) == []


def test_saving_needs_a_known_suite_and_a_bearable_cost(tmp_path: Path, key: PrivateKey) -> None:
    with pytest.raises(ConfigError, match="no signature suite 0xff"):
        save_key(tmp_path / "k", key, "", STANDARD_SUITES)
    with pytest.raises(ConfigError, match="not valid; the standard cost is"):
        save_key(tmp_path / "k", key, "", TEST_SUITES, KdfCost(3, 8, 1))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_file_that_others_can_touch_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"run `chmod 600 {path}`"):
        load_key(path, "open sesame", TEST_SUITES)


def test_read_only_for_the_owner_is_fine(path: Path, key: PrivateKey) -> None:
    path.chmod(0o400)
    assert load_key(path, "open sesame", TEST_SUITES).secret == key.secret


def test_what_is_not_a_readable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such key file; restore it from a backup"):
        load_key(tmp_path / "none", "", TEST_SUITES)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="not a regular file"):
            load_key(name, "", TEST_SUITES)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match="can't read the key file"):
        load_key(tmp_path / "loop", "", TEST_SUITES)


def test_a_symbolic_link_to_a_key_works(path: Path, key: PrivateKey) -> None:
    path.with_name("link").symlink_to(path)
    assert load_key(path.with_name("link"), "open sesame", TEST_SUITES).secret == key.secret


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "huge").chmod(0o600)
    with pytest.raises(ConfigError, match="longer than 65536 bytes"):
        load_key(tmp_path / "huge", "", TEST_SUITES)


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes().rstrip()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ConfigError, match="not JSON"):
            load_key(path, "open sesame", TEST_SUITES)


def test_no_altered_byte_yields_another_key(path: Path, key: PrivateKey) -> None:
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :])
        try:
            loaded = load_key(path, "open sesame", TEST_SUITES)
        except ConfigError:
            refused += 1
        else:
            assert loaded.secret == key.secret
    assert refused > 0.9 * len(whole)  # the rest is white space


@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_key(path, "", TEST_SUITES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.update(format="other"), "not a key file"),
        (lambda d: d.update(version=2), "version 2 of the key file format; upgrade"),
        (lambda d: d.update(version=True), "`version` is not a number"),
        (lambda d: d.pop("nonce"), "fields are missing"),
        (lambda d: d.pop("kdf"), "fields are missing"),
        (lambda d: d.update(extra=1), "fields are missing or unknown"),
        (lambda d: d.update(suite=7), "suite is not in use"),
        (lambda d: d.update(suite=2**70), "`suite` is not a number in range"),
        (lambda d: d.update(suite="1"), "`suite` is not a number in range"),
        (lambda d: d.update(public_key="00"), "`public_key` is not 32 bytes"),
        (lambda d: d.update(public_key=5), "`public_key` is not 32 bytes"),
        (lambda d: d.update(public_key="zz" * 32), "`public_key` is not 32 bytes"),
        (lambda d: d.update(public_key="00" * 32), "contradict"),
        (lambda d: d.update(address=None), "contradict"),
        (lambda d: d.update(nonce="00" * 11), "`nonce` is not 12 bytes"),
        (lambda d: d.update(nonce="00" * 12), "wrong passphrase, or the file was altered"),
        (lambda d: d.update(ciphertext=""), "wrong passphrase, or the file was altered"),
        (lambda d: d.update(ciphertext=d["ciphertext"][:-2]), "wrong passphrase, or the file was altered"),
        (lambda d: d.update(ciphertext=None), "`ciphertext` is not some bytes"),
        (lambda d: d.update(kdf=None), "`kdf` is not scrypt"),
        (lambda d: d["kdf"].update(name="pbkdf2"), "`kdf` is not scrypt"),
        (lambda d: d["kdf"].update(salt=""), "`salt` is not 16 bytes"),
        (lambda d: d["kdf"].update(n=8), "wrong passphrase, or the file was altered"),
        (lambda d: d["kdf"].update(n=2**31), "too much memory or time"),
        (lambda d: d["kdf"].update(r=2**31), "too much memory or time"),
        (lambda d: d["kdf"].update(p=2**31), "too much memory or time"),
        (lambda d: d["kdf"].update(n=2**17, p=5), "too much memory or time"),
        (lambda d: d["kdf"].update(n=0), "not valid"),
        (lambda d: d["kdf"].update(n=1), "not valid"),
        (lambda d: d["kdf"].update(r=0), "not valid"),
        (lambda d: d["kdf"].update(p=0), "not valid"),
        (lambda d: d["kdf"].update(n=2**16, r=1), "not valid"),
        (lambda d: d["kdf"].update(p=-1), "`p` is not a number in range"),
        (lambda d: d["kdf"].update(p=1.0), "`p` is not a number in range"),
    ],
)
def test_hostile_fields(path: Path, change: Callable[[dict[str, Any]], object], why: str) -> None:
    rewrite(path, change)
    with pytest.raises(ConfigError, match=why) as caught:
        load_key(path, "open sesame", TEST_SUITES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"[" * 60_000, b'{"format": ' + b"9" * 5000 + b"}", b"[]", b'"x"', b"\xff\xfe"])
def test_hostile_json(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    with pytest.raises(ConfigError):
        load_key(path, "", TEST_SUITES)


def test_a_sealed_secret_must_belong_to_the_header(tmp_path: Path, key: PrivateKey) -> None:
    class Liar(DeterministicSuite):
        """Loads another key than was saved, as a damaged library would."""

        def load(self, secret: bytes) -> Any:
            return super().load(secret[::-1])

    save_key(tmp_path / "k", key, "", TEST_SUITES)
    with pytest.raises(ConfigError, match="do not belong together"):
        load_key(tmp_path / "k", "", SuiteSet([Liar()]))


def test_reading_is_bounded_exactly(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    (tmp_path / "f").chmod(0o600)
    assert read_private(tmp_path / "f", 5) == b"12345"
    with pytest.raises(ConfigError, match="longer than 4 bytes"):
        read_private(tmp_path / "f", 4)
