"""`load`: final balances equal plain arithmetic over the file, and what it refuses."""

import csv
import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from command_line import COLUMNS, CommandLine, write_csv

from pipeline.cli import loading
from pipeline.node.layout import DirectoryLock, NodeLayout

Rows = list[tuple[object, ...]]


def balances(cli: CommandLine, directory: Path) -> dict[str, dict[str, int]]:
    found = cli.ok("accounts", directory, "--json").objects()
    return {item["name"]: {s: int(a) for s, a in item["balances"].items()} for item in found if item["name"]}


def arithmetic(rows: Rows) -> dict[str, int]:
    """Everyone is given what they spend, then pays."""
    final: Counter[str] = Counter()
    for _, to, amount, *_ in rows:
        final[str(to)] += int(str(amount))
    return dict(final)


def random_rows(count: int, names: int, seed: int) -> Rows:
    chance = random.Random(seed)
    return [
        (f"n{chance.randrange(names)}", f"n{chance.randrange(names)}", chance.randrange(1, 10**12))
        for _ in range(count)
    ]


def units(found: dict[str, dict[str, int]]) -> dict[str, int]:
    return {name: held["UNIT"] for name, held in found.items() if held.get("UNIT")}


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_balances_equal_arithmetic_whatever_the_batch(
    cli: CommandLine, fresh: Path, tmp_path: Path, batch: int
) -> None:
    rows = random_rows(300, 25, seed=1)
    file = write_csv(tmp_path / "p.csv", rows)
    (report,) = cli.ok("load", fresh, file, *COLUMNS, "--batch", batch, "--json").objects()
    assert units(balances(cli, fresh)) == arithmetic(rows)
    assert report["payments"] == 300
    assert report["rejected"] == 0
    assert report["all_ok"] is True
    assert report["problems"] == []
    assert (report["transactions"] == 300) is (batch == 1)
    assert 0 < report["crossed"] < 300
    assert report["rounds"] >= 2


def test_twenty_thousand_payments(
    cli: CommandLine, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HAUPTBUCH_STORE__DURABILITY")  # as it is outside of tests
    rows = random_rows(20_000, 500, seed=2)
    file = write_csv(tmp_path / "p.csv", rows)
    shown = cli.ok("load", fresh, file, *COLUMNS, "--batch", 100)
    assert "receipts all OK" in shown.out
    assert "payments      20,000 by 500 names" in shown.out
    assert units(balances(cli, fresh)) == arithmetic(rows)


def test_second_load_goes_on_where_the_first_ended(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    first, second = random_rows(60, 8, seed=3), random_rows(60, 12, seed=4)
    cli.ok("load", fresh, write_csv(tmp_path / "1.csv", first), *COLUMNS)
    cli.ok("load", fresh, write_csv(tmp_path / "2.csv", second), *COLUMNS, "--batch", 5)
    expected = Counter(arithmetic(first))
    expected.update(arithmetic(second))
    assert units(balances(cli, fresh)) == dict(expected)


def test_assets_references_decimals_and_gzip(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    rows = [("a", "b", "1.5", "EUR", f"r{n}") for n in range(130)]
    rows += [("b", "c", "0.25", "USD", "same"), ("a", "c", "2", "USD", "")]
    text = "payer;x\n".replace(";x", ",payee,sum,currency,text") + "".join(",".join(row) + "\n" for row in rows)
    file = tmp_path / "p.csv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    columns = ("--from", "payer", "--to", "payee", "--amount", "sum", "--asset", "currency", "--reference", "text")
    (report,) = cli.ok("load", fresh, file, *columns, "--decimals", 2, "--batch", 1000, "--json").objects()
    # 130 references need two transactions of at most 100 operations; another asset is another transaction.
    assert report["transactions"] == 4
    assert report["funding_transactions"] == 2
    found = balances(cli, fresh)
    assert found["b"] == {"EUR": 130 * 150}
    assert found["c"] == {"USD": 225}
    assert found["a"] == {}
    shown = cli.ok("account", fresh, "c").out
    assert "2.25" in shown


def test_rejected_rows_are_listed_and_are_no_failure(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    address = cli.ok("keygen", fresh, "someone").out.split()[1]
    rows: Rows = [
        ("a", "b", 5),
        ("a", "b", -5),
        ("a", "b", "x"),
        ("a", "", 5),
        ("a", "b"),
        (address, "b", 1),
        ("b", "a", 3),
    ]
    file = write_csv(tmp_path / "p.csv", rows)
    listed = tmp_path / "no.csv"
    result = cli.ok("load", fresh, file, *COLUMNS, "--rejects", listed, "--json")
    (report,) = result.objects()
    assert (report["payments"], report["rejected"]) == (2, 5)
    assert str(listed) in result.err
    with listed.open(newline="") as opened:
        lines = [int(row["line"]) for row in csv.DictReader(opened)]
    assert lines == [3, 4, 5, 6, 7]
    assert units(balances(cli, fresh)) == {"b": 5, "a": 3}


def test_what_was_minted_is_told(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [("a", "b", "5.25"), ("b", "c", "2")])
    shown = cli.ok("load", fresh, file, *COLUMNS, "--decimals", 2).out
    assert "minted        7.25 UNIT by the treasury for the payers" in shown
    (report,) = cli.ok("load", fresh, file, *COLUMNS, "--decimals", 2, "--json").objects()
    assert report["minted"] == {"UNIT": "725"}


def test_without_minting_payers_spend_what_they_have(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    cli.ok("load", fresh, write_csv(tmp_path / "start.csv", [("x", "a", 10), ("x", "b", 3)]), *COLUMNS)
    file = write_csv(tmp_path / "p.csv", [("a", "b", 4), ("b", "c", 2), ("b", "c", 2), ("a", "c", 6), ("new", "a", 1)])
    listed = tmp_path / "no.csv"
    (report,) = cli.ok("load", fresh, file, *COLUMNS, "--no-mint", "--rejects", listed, "--json").objects()
    assert (report["payments"], report["rejected"], report["minted"]) == (2, 3, {})
    assert (report["transactions"], report["funding_transactions"], report["all_ok"]) == (2, 0, True)
    with listed.open(newline="") as opened:
        refused = [(int(row["line"]), row["reason"]) for row in csv.DictReader(opened)]
    assert refused == [(line, "the payer has less than its rows add up to") for line in (3, 4, 6)]
    assert units(balances(cli, fresh)) == {"b": 7, "c": 6}


def test_without_minting_decimals_must_be_the_assets(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [("a", "a", 1)])
    cli.ok("load", fresh, file, *COLUMNS, "--decimals", 2)
    assert "--decimals 2" in cli("load", fresh, file, *COLUMNS, "--no-mint").error


def test_names_of_the_ledgers_own_keys_are_no_payers(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    rows: Rows = [("treasury", "b", 5), ("a", "operator", 1), ("attestor", "a", 1), ("payer", "payee", 2)]
    listed = tmp_path / "no.csv"
    (report,) = cli.ok(
        "load", fresh, write_csv(tmp_path / "p.csv", rows), *COLUMNS, "--rejects", listed, "--json"
    ).objects()
    assert (report["payments"], report["rejected"]) == (1, 3)
    assert listed.read_text().count("own keys; rename it") == 3
    assert units(balances(cli, fresh)) == {"payee": 2}


def test_a_file_parted_by_tabs_and_names_typed_in_two_ways(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("from\tto\tamount\nx\te\u0301\t5\nx\t\u00e9\t1\n", encoding="utf-8")
    cli.ok("load", fresh, file, *COLUMNS, "--delimiter", "tab")
    for name in ("e\u0301", "\u00e9"):
        (found,) = cli.ok("account", fresh, name, "--json").objects()
        assert found["balances"] == {"UNIT": "6"}


def test_a_load_of_which_no_row_can_be_taken_is_a_failure(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    result = cli("load", fresh, write_csv(tmp_path / "p.csv", [("a", "b", "1e5"), ("a", "b", -1)]), *COLUMNS)
    assert result.code == 1
    assert "no row was taken" in result.err


def test_rejects_never_replace_the_file_that_is_loaded(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [("a", "b", 1), ("a", "b", "x")])
    before = file.read_bytes()
    (tmp_path / "link.csv").symlink_to(file)
    for same in (file, tmp_path / "link.csv"):
        result = cli("load", fresh, file, *COLUMNS, "--rejects", same)
        assert (result.code, result.error) == (2, f"--rejects {same} is the CSV itself; give another place")
    assert file.read_bytes() == before


def test_limit_reads_so_many_rows(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    rows = random_rows(50, 5, seed=5)
    file = write_csv(tmp_path / "p.csv", rows)
    (report,) = cli.ok("load", fresh, file, *COLUMNS, "--limit", 20, "--json").objects()
    assert report["payments"] == 20
    assert units(balances(cli, fresh)) == arithmetic(rows[:20])


def test_nothing_to_pay_is_done(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    (report,) = cli.ok("load", fresh, write_csv(tmp_path / "p.csv", []), *COLUMNS, "--json").objects()
    assert (report["payments"], report["transactions"], report["funding_transactions"]) == (0, 0, 0)


def test_a_keygen_account_pays_from_its_own_key(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    cli.ok("keygen", fresh, "alice", "--suite", "ML-DSA-44")
    cli.ok("load", fresh, write_csv(tmp_path / "p.csv", [("alice", "bob", 9)]), *COLUMNS)
    assert units(balances(cli, fresh)) == {"bob": 9}
    (alice,) = cli.ok("account", fresh, "alice", "--json").objects()
    assert alice["nonce"] == 1


def test_the_largest_amounts_fit_and_no_more(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    largest = 2**128 - 1
    cli.ok("load", fresh, write_csv(tmp_path / "p.csv", [("a", "b", largest)]), *COLUMNS)
    assert units(balances(cli, fresh)) == {"b": largest}
    refused = cli("load", fresh, write_csv(tmp_path / "q.csv", [("a", "b", 1)]), *COLUMNS)
    assert refused.code == 2
    assert "2^128 - 1" in refused.error


def test_other_decimals_than_the_asset_has(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [("a", "b", 1)])
    cli.ok("load", fresh, file, *COLUMNS, "--decimals", 2)
    refused = cli("load", fresh, file, *COLUMNS, "--decimals", 3)
    assert refused.code == 2
    assert "--decimals 2" in refused.error


def test_spending_more_than_funded_is_told(
    cli: CommandLine, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the second pass to pay what the first did not sum, receipts say so and the exit code is 1."""
    rows: Rows = [("a", "b", 10), ("a", "b", 5)]
    file = write_csv(tmp_path / "p.csv", rows)
    real = loading.plan_funding

    def forgetful(source_rows: object, on_reject: object) -> object:
        plan = real(source_rows, on_reject)  # type: ignore[arg-type]
        plan.totals["a"]["UNIT"] = 12
        return plan

    monkeypatch.setattr(loading, "plan_funding", forgetful)
    result = cli("load", fresh, file, *COLUMNS, "--batch", 10)
    assert result.code == 1
    assert "PARTIAL, entry 1 INSUFFICIENT_FUNDS" in result.out
    assert "receipts NOT all OK" in result.out
    assert units(balances(cli, fresh)) == {"a": 2, "b": 10}


def test_a_file_that_changes_between_the_passes(
    cli: CommandLine, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "p.csv", [("a", "b", 10)])
    real = loading.settle

    def settle_while_it_grows(node: object) -> None:
        with file.open("a") as opened:
            opened.write("a,b,10\n")
        real(node)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "settle", settle_while_it_grows)
    refused = cli("load", fresh, file, *COLUMNS)
    assert refused.code == 2
    assert "changed while it was read" in refused.error


@pytest.mark.parametrize(
    ("text", "arguments", "word"),
    [
        ("from,to,amount\na,b,1\n", ("--from", "from", "--to", "to", "--amount", "sum"), "no column 'sum'"),
        ("", COLUMNS, "empty"),
        ("from,to,amount\na,b,1\n", (*COLUMNS, "--batch", 0), "--batch"),
        ("from,to,amount\na,b,1\n", (*COLUMNS, "--batch", 10_001), "--batch"),
        ("from,to,amount\na,b,1\n", (*COLUMNS, "--decimals", 39), "--decimals"),
        ("from,to,amount\na,b,1\n", (*COLUMNS, "--limit", -1), "--limit"),
        ("from,to,amount\na,b,1\n", (*COLUMNS, "--rejects", "/nowhere/x.csv", "--limit", 1), ""),
    ],
)
def test_refuses_bad_files_and_options(
    cli: CommandLine, fresh: Path, tmp_path: Path, text: str, arguments: tuple[object, ...], word: str
) -> None:
    file = tmp_path / "p.csv"
    file.write_text(text)
    result = cli("load", fresh, file, *arguments)
    if word:
        assert result.code == 2
        assert word in result.error
    else:
        assert result.code == 0  # a place for rejects matters only where there are some


def test_damaged_gzip_is_one_line(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.csv.gz"
    file.write_bytes(gzip.compress(b"from,to,amount\n" + b"a,b,1\n" * 1000)[:-12])
    refused = cli("load", fresh, file, *COLUMNS)
    assert refused.code == 2
    assert "can't be read" in refused.error


def test_no_such_file(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    for path, word in ((tmp_path / "none.csv", "no such file"), (tmp_path, "a directory"), ("/dev/null", "no regular")):
        refused = cli("load", fresh, path, *COLUMNS)
        assert refused.code == 2
        assert f"{path}: {word}" in refused.error


def test_a_held_directory_is_refused(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [("a", "b", 10)])
    with DirectoryLock(NodeLayout(fresh)):
        refused = cli("load", fresh, file, *COLUMNS)
        status = json.loads(cli.ok("status", fresh, "--json").out)
    assert refused.code == 2
    assert refused.error.startswith(f"{fresh} is in use by pid ")
    assert status["pid"] == int(refused.error.rsplit(" ", 1)[1])


def test_damaged_demo_seed_and_name_book(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [("a", "b", 10)])
    seed = fresh / "keys" / "demo.seed"
    kept = seed.read_bytes()
    for damage in (b"", b"zz" * 32, b"00" * 31, b"00" * 33):
        seed.write_bytes(damage)
        refused = cli("load", fresh, file, *COLUMNS)
        assert refused.code == 2
        assert "demo.seed" in refused.error
    seed.write_bytes(kept)
    seed.chmod(0o644)
    assert "chmod 600" in cli("load", fresh, file, *COLUMNS).error
    seed.chmod(0o600)
    (fresh / "names.sqlite").write_bytes(b"this is no database" * 100)
    refused = cli("load", fresh, file, *COLUMNS)
    assert refused.code == 2
    assert "names.sqlite" in refused.error
