"""Vectors made by others: Wycheproof and NIST ACVP. What is not run stands in tests/vectors/NOT_RUN.md."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa
from pqcrypto.sign import ml_dsa_44, ml_dsa_65, ml_dsa_87

from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from tests.unit.mldsa_reference import public_key_of, representative

VECTORS = Path(__file__).parents[1] / "vectors"
ML_DSA = ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]
PUBLIC = {
    "ML-DSA-44": mldsa.MLDSA44PublicKey,
    "ML-DSA-65": mldsa.MLDSA65PublicKey,
    "ML-DSA-87": mldsa.MLDSA87PublicKey,
}
SECOND = {"ML-DSA-44": ml_dsa_44, "ML-DSA-65": ml_dsa_65, "ML-DSA-87": ml_dsa_87}
Case = dict[str, Any]


def read(name: str) -> dict[str, Any]:
    loaded = json.loads(gzip.decompress((VECTORS / f"{name}.json.gz").read_bytes()))
    assert isinstance(loaded, dict)
    return loaded


def wycheproof(name: str) -> list[Case]:
    """Cases, each with what its group says."""
    groups = read(f"wycheproof/{name}")["testGroups"]
    return [{**group, **case} for group in groups for case in group["tests"]]


def acvp(prompt: str, results: str) -> list[Case]:
    """Cases, each with what its group says, joined with their results."""
    expected = {c["tcId"]: c for g in read(f"acvp_circl/{results}")["testGroups"] for c in g["tests"]}
    groups = read(f"acvp_circl/{prompt}")["testGroups"]
    cases = [{**group, **case, **expected[case["tcId"]]} for group in groups for case in group["tests"]]
    assert len(cases) == len(expected)
    return cases


def load(name: str) -> list[Case]:
    """Cases of a row of NOT_RUN.md."""
    folder, _, file = name.partition("/")
    if folder == "wycheproof":
        return wycheproof(file)
    if file.startswith("SLH"):
        return acvp(f"{file}_prompt", f"{file}_results")
    return acvp(f"{file}_prompt", f"{file}_expectedResults")


def can_run(case: Case) -> bool:
    return case.get("parameterSet", "ML-DSA-65") in {suite.name for suite in STANDARD_SUITES.values()}


def runnable(name: str, parameter_set: str | None = None) -> list[Case]:
    found = [case for case in load(name) if can_run(case) and parameter_set in (None, case.get("parameterSet"))]
    assert found
    return found


def verifies_internally(parameter_set: str, public_key: bytes, mu: bytes, signature: bytes) -> bool:
    try:
        PUBLIC[parameter_set].from_public_bytes(public_key).verify_mu(signature, mu)
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.mark.parametrize("bits", [44, 65])
def test_wycheproof_verify(bits: int) -> None:
    suite = STANDARD_SUITES.named(f"ML-DSA-{bits}")
    for case in runnable(f"wycheproof/mldsa_{bits}_verify_test"):
        answer = suite.verify(
            bytes.fromhex(case["publicKey"]),
            bytes.fromhex(case["msg"]),
            bytes.fromhex(case.get("ctx", "")),
            bytes.fromhex(case["sig"]),
        )
        assert answer is (case["result"] == "valid"), (case["tcId"], case["comment"])


def test_wycheproof_sign_from_seed() -> None:
    suite = STANDARD_SUITES.named("ML-DSA-65")
    for case in runnable("wycheproof/mldsa_65_sign_seed_test"):
        seed, context = bytes.fromhex(case["privateSeed"]), bytes.fromhex(case.get("ctx", ""))
        if "IncorrectPrivateKeyLength" in case["flags"]:
            with pytest.raises(ConfigError, match="give 32 bytes"):
                suite.load(seed)
            continue
        key = suite.load(seed)
        assert key.public_key.hex() == case["publicKey"]
        if case["result"] == "invalid":
            assert case["flags"] == ["InvalidContext"]
            with pytest.raises(ConfigError, match="at most 255"):
                key.sign(bytes.fromhex(case["msg"]), context)
            continue
        signature = bytes.fromhex(case["sig"])
        assert verifies_internally("ML-DSA-65", key.public_key, bytes.fromhex(case["mu"]), signature), case["tcId"]
        if "msg" in case:
            message = bytes.fromhex(case["msg"])
            assert suite.verify(key.public_key, message, context, signature), case["tcId"]
            assert suite.verify(key.public_key, message, context, key.sign(message, context)), case["tcId"]
        else:
            assert "Internal" in case["flags"]


@pytest.mark.parametrize("parameter_set", ML_DSA)
def test_acvp_key_generation(parameter_set: str) -> None:
    suite = STANDARD_SUITES.named(parameter_set)
    for case in runnable("acvp_circl/ML-DSA-keyGen-FIPS204", parameter_set):
        key = suite.generate(bytes.fromhex(case["seed"]))
        secret = bytes.fromhex(case["sk"])
        assert key.public_key == bytes.fromhex(case["pk"]), case["tcId"]
        assert public_key_of(parameter_set, secret) == key.public_key, case["tcId"]
        signature = SECOND[parameter_set].sign(secret, b"message", b"context")
        assert suite.verify(key.public_key, b"message", b"context", signature), case["tcId"]


@pytest.mark.parametrize("parameter_set", ML_DSA)
def test_acvp_signatures_verify(parameter_set: str) -> None:
    for case in runnable("acvp_circl/ML-DSA-sigGen-FIPS204", parameter_set):
        public_key = public_key_of(parameter_set, bytes.fromhex(case["sk"]))
        signature = bytes.fromhex(case["signature"])
        mu = representative(public_key, bytes.fromhex(case["message"]))
        assert verifies_internally(parameter_set, public_key, mu, signature), case["tcId"]
        assert not verifies_internally(parameter_set, public_key, mu[::-1], signature), case["tcId"]


@pytest.mark.parametrize("parameter_set", ML_DSA)
def test_acvp_verification(parameter_set: str) -> None:
    for case in runnable("acvp_circl/ML-DSA-sigVer-FIPS204", parameter_set):
        public_key = bytes.fromhex(case["pk"])
        mu = representative(public_key, bytes.fromhex(case["message"]))
        answer = verifies_internally(parameter_set, public_key, mu, bytes.fromhex(case["signature"]))
        assert answer is case["testPassed"], case["tcId"]


@pytest.mark.parametrize("part", [slice(2), pytest.param(slice(2, None), marks=pytest.mark.slow)])
def test_acvp_slh_dsa_key_pairs(part: slice) -> None:
    suite = STANDARD_SUITES.named("SLH-DSA-SHA2-128s")
    for case in runnable("acvp_circl/SLH-DSA_keyGen", suite.name)[part]:
        key = suite.load(bytes.fromhex(case["sk"]))
        assert key.public_key.hex() == case["pk"].lower()
        seeds = "".join(case[name] for name in ("skSeed", "skPrf", "pkSeed"))
        assert key.secret[:48].hex() == seeds.lower()
        # The signature's top tree ends in PK.root, so it holds only if the seeds lead to this public key.
        assert suite.verify(key.public_key, b"message", b"context", key.sign(b"message", b"context")), case["tcId"]


def test_run_and_not_run_make_all() -> None:
    folders = ("wycheproof", "acvp_circl")
    lines = (VECTORS / "NOT_RUN.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    table = {row[0]: row[1:] for row in rows if row[0].startswith(folders)}
    stored = {f"{folder}/{path.name}" for folder in folders for path in (VECTORS / folder).glob("*.gz")}
    assert set(table) == {re.sub(r"(_prompt|_results|_expectedResults)?\.json\.gz$", "", name) for name in stored}
    for name, (cases, run, not_run, why) in table.items():
        found = load(name)
        assert len(found) == int(cases) == int(run) + int(not_run), name
        assert sum(can_run(case) for case in found) == int(run), name
        assert bool(why) is (int(not_run) > 0), name
