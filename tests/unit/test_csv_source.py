"""CSV of payments: exact amounts, a reason for each bad row, funding and batches as the naive models say."""

import csv
import gzip
import io
from collections.abc import Callable
from decimal import Context, Decimal
from importlib.resources import as_file
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli import csv_records
from pipeline.cli.csv_plan import Batch, batches, plan_funding
from pipeline.cli.csv_records import KEPT_TEXT, MAX_RECORD_BYTES, Reject
from pipeline.cli.csv_source import Columns, CsvSource, Payment, RejectWriter, parse_amount
from pipeline.data import SAMPLE_ROWS, sample
from pipeline.errors import ConfigError

COLUMNS = Columns("from", "to", "amount")
ALL_COLUMNS = Columns("from", "to", "amount", "asset", "ref")
HEADER = b"from,to,amount\n"
T = TypeVar("T")


def value_or_error(call: Callable[[], T]) -> T | ValueError:
    try:
        return call()
    except ValueError as error:
        return error


def rows_of(tmp_path: Path, data: bytes, columns: Columns = COLUMNS, **options: int | str) -> list[Payment | Reject]:
    path = tmp_path / "payments.csv"
    path.write_bytes(data)
    return list(CsvSource(path, columns, **options).rows())


def test_rows_carry_line_names_amount_asset_and_reference(tmp_path: Path) -> None:
    data = b"ref,asset,amount,to,from,more\nr1,EUR,1.5, bob ,alice,\n,USD,2,carol,bob,x\n"
    assert rows_of(tmp_path, data, ALL_COLUMNS, decimals=2) == [
        Payment(2, "alice", "bob", 150, "EUR", b"r1"),
        Payment(3, "bob", "carol", 200, "USD", b""),
    ]


def test_default_asset_and_no_reference(tmp_path: Path) -> None:
    assert rows_of(tmp_path, HEADER + b"a,b,7\n") == [Payment(2, "a", "b", 7, "UNIT", b"")]


def test_gzip_byte_order_mark_crlf_quotes_and_blank_lines(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbffrom,to,amount\r\n"a, b",c,1\r\n\r\nd,"e ""x""",2'
    expected = [Payment(2, "a, b", "c", 1, "UNIT", b""), Payment(4, "d", 'e "x"', 2, "UNIT", b"")]
    assert rows_of(tmp_path, data) == expected
    assert rows_of(tmp_path, gzip.compress(data, mtime=0)) == expected


def test_rows_can_be_read_twice_and_limited(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(HEADER + b"a,b,1\na,b,0\na,b,3\n")
    source = CsvSource(path, COLUMNS, limit=2)
    assert list(source.rows()) == list(source.rows())
    assert [row.line for row in source.rows()] == [2, 3]
    assert list(CsvSource(path, COLUMNS, limit=0).rows()) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a,b", "2 fields where the header has 3"),
        (b"a,b,1,2", "4 fields where the header has 3"),
        (b",b,1", "payer is empty"),
        (b"a,  ,1", "payee is empty"),
        (b"a,b,", "amount is empty"),
        (b"a,b,0", "amount is zero"),
        (b"a,b,-0", "amount is zero"),
        (b"a,b,0.00", "amount is zero"),
        (b"a,b,-1", "amount is negative"),
        (b"a,b,1.234", "amount has more than 2 decimal places"),
        (b"a,b,1e3", "amount is not a decimal number of digits and a point"),
        (b"a,b,.", "amount is not a decimal number of digits and a point"),
        (b"a,b,1 000", "amount is not a decimal number of digits and a point"),
        (b"a,b,nan", "amount is not a decimal number of digits and a point"),
        ("a,b,\u0661".encode(), "amount is not a decimal number of digits and a point"),
        (b"a,b," + b"9" * 129, "amount is not a decimal number of digits and a point"),
        (b"a,b,3402823669209384634633746074317682114.56", "amount is over 2^128 - 1 minor units"),
        (b"a,b,9" + b"0" * 40, "amount is over 2^128 - 1 minor units"),
        (b"\xff,b,1", "not UTF-8"),
        ("\ud800".encode("utf-8", "surrogatepass") + b",b,1", "not UTF-8"),
        (b"a\0,b,1", "holds a NUL byte"),
        (b"a,b\x1b[31m,1", "payee has unprintable characters"),
        (b'"a\nb",c,1', "payer has unprintable characters"),
        (b"a" * 257 + b",b,1", "payer is over 256 bytes"),
        (b"a," + "ä".encode() * 129 + b",1", "payee is over 256 bytes"),
        (b"a" * 140_000 + b",b,1", "not CSV: field larger than field limit (131072)"),
        (b'"a"x,b,1', "not CSV: ',' expected after '\"'"),
        (b"a,b\rc,1", "not CSV: new-line character seen in unquoted field"),
        (b"a,b," + b"1" * (MAX_RECORD_BYTES + 5), f"over {MAX_RECORD_BYTES} bytes"),
    ],
)
def test_a_bad_row_is_rejected_and_reading_goes_on(tmp_path: Path, line: bytes, reason: str) -> None:
    before, rejected, after = rows_of(tmp_path, HEADER + b"x,y,1\n" + line + b"\nx,y,2\n", decimals=2)
    assert isinstance(before, Payment)
    assert isinstance(rejected, Reject)
    assert rejected.line == 3
    assert rejected.reason.startswith(reason)
    assert rejected.text.encode("utf-8", "surrogateescape") == line[:KEPT_TEXT]
    assert isinstance(after, Payment)
    assert (after.line, after.amount) == (4 + line.count(b"\n"), 200)


def test_a_bad_asset_or_reference_is_rejected(tmp_path: Path) -> None:
    data = b"from,to,amount,asset,ref\na,b,1,,r\na,b,1," + b"E" * 33 + b",r\na,b,1,E," + b"r" * 65 + b"\n"
    reasons = [row.reason for row in rows_of(tmp_path, data, ALL_COLUMNS) if isinstance(row, Reject)]
    assert reasons == ["asset is empty", "asset is over 32 bytes", "reference is over 64 bytes"]


def test_an_open_quote_costs_what_it_swallowed_but_memory_is_bounded(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, HEADER + b'a,b,1\n"a,b,1\n' + b"c,d,5\n" * 40_000)
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert [(reject.line, len(reject.text) <= KEPT_TEXT) for reject in rejects] == [(3, True)]
    taken = [row for row in rows if isinstance(row, Payment)]
    assert taken[-1].line == 40_003
    assert len(taken) > 15_000
    assert rows_of(tmp_path, HEADER + b'a,b,1\n"a,b,1\n')[1] == Reject(3, "not CSV: unexpected end of data", '"a,b,1')


def test_a_record_of_many_lines_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_records, "MAX_RECORD_BYTES", 40)
    rows = rows_of(tmp_path, HEADER + b'"' + b"x\n" * 60 + b"a,b,1\n")
    assert rows[0] == Reject(2, "over 40 bytes", '"' + "x\n" * 19 + "x")
    assert rows[-1] == Payment(62, "a", "b", 1, "UNIT", b"")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "payments.csv: empty; the first line must name the columns"),
        (b"from;to;amount\n", "columns are parted by ';', it seems; give --delimiter ';'"),
        (b"from\tto\tamount\n", "give --delimiter 'tab'"),
        (b"x\n", "no column 'from', 'to', 'amount'; there are: 'x'"),
        ("from,to,amount\n".encode("utf-16"), "payments.csv: this is UTF-16; save it as UTF-8"),
        (
            gzip.compress(b"\xfe\xff" + "from,to".encode("utf-16-be"), mtime=0),
            "payments.csv: this is UTF-16; save it as UTF-8",
        ),
        (b"from,to,amount\ra,b,1\r", "payments.csv: lines end with CR alone; end them with LF"),
        (b"f\0r\0", "holds a NUL byte; the first line must name the columns, in UTF-8"),
        (b"from,to,value\n", "no column 'amount'; there are: 'from', 'to', 'value'"),
        (b"from,to,amount,to\n", "column 'to' is there more than once; rename all but one"),
        (b"\xff,to,amount\n", "the header can't be read: not UTF-8"),
        (b"x," * 50 + b"x\n", "and 21 more"),
        (b"from,to,am\x1bount\n", "'am\\x1bount'"),
        (b"\x1f\x8bnot gzip", "payments.csv: can't be read after line 0: damaged or cut gzip ("),
        (gzip.compress(HEADER + b"a,b,1\n" * 9, mtime=0)[:-9], "payments.csv: can't be read after line "),
        (gzip.compress(HEADER, mtime=0)[:12] + b"\xff" * 30, "payments.csv: can't be read after line 0: "),
    ],
)
def test_a_file_that_cannot_be_used_says_why_in_one_line(tmp_path: Path, data: bytes, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rows_of(tmp_path, data)
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


def test_missing_file_and_numbers_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file or directory; give a CSV file"):
        list(CsvSource(tmp_path / "none.csv", COLUMNS).rows())
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        list(CsvSource(tmp_path, COLUMNS).rows())
    with pytest.raises(ConfigError, match="--decimals must be 0 to 38, not 39"):
        CsvSource(tmp_path, COLUMNS, decimals=39)
    for limit in (-1, 2**63):
        with pytest.raises(ConfigError, match=rf"--limit must be 0 or more and below 2\^63, not {limit}"):
            CsvSource(tmp_path, COLUMNS, limit=limit)
    for delimiter in ("", ";;", '"', "\n", "\r", "\0", " ", ".", "1", "a"):
        with pytest.raises(ConfigError, match="--delimiter must be one character"):
            CsvSource(tmp_path, COLUMNS, delimiter=delimiter)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_columns_may_be_parted_by_another_character(tmp_path: Path, delimiter: str) -> None:
    data = HEADER.replace(b",", delimiter.encode()) + delimiter.join(['"a,b"', "c", "1"]).encode() + b"\n"
    assert rows_of(tmp_path, data, delimiter=delimiter) == [Payment(2, "a,b", "c", 1, "UNIT", b"")]


def test_a_quoted_header_may_hold_a_carriage_return(tmp_path: Path) -> None:
    data = b'"no\rte",from,to,amount\nx,a,b,1\n'
    assert rows_of(tmp_path, data) == [Payment(2, "a", "b", 1, "UNIT", b"")]


def test_payers_and_payees_are_two_columns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--from and --to are both column 'from'; name two columns"):
        rows_of(tmp_path, HEADER, Columns("from", " from", "amount"))


def test_names_that_differ_by_their_normal_form_are_one(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, HEADER + "e\u0301,b,1\n\u00e9,b,1\n".encode())
    assert {row.payer for row in rows if isinstance(row, Payment)} == {"\u00e9"}


EXACT = Context(prec=400)


@given(st.integers(1, 2**128 - 1), st.integers(0, 38), st.sampled_from(["", "+"]), st.integers(0, 3), st.integers(0, 3))
def test_an_amount_written_out_is_read_back(amount: int, decimals: int, sign: str, zeros: int, trailing: int) -> None:
    digits = str(amount).rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    text = sign + "0" * zeros + whole + ("." + fraction + "0" * trailing if decimals or trailing else "")
    assert parse_amount(text, decimals) == amount


@given(st.text(st.sampled_from("0123456789.+-e_ "), max_size=45), st.integers(0, 38))
def test_any_text_is_the_exact_decimal_or_refused(text: str, decimals: int) -> None:
    amount = value_or_error(lambda: parse_amount(text, decimals))
    if isinstance(amount, ValueError):
        assert str(amount).startswith("amount ")
    else:
        assert EXACT.multiply(Decimal(text), Decimal(10) ** decimals) == amount
        assert 0 < amount < 2**128


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_rows_or_one_error(data: bytes) -> None:
    try:
        lines = list(csv_records.read_records(io.BytesIO(data), "x.csv"))
    except ConfigError:
        first = data.split(b"\n")[0]
        assert data.startswith((b"\xff\xfe", b"\xfe\xff")) or (b"\r" in first and b"\n" not in data)
        return
    assert [record.line for record in lines] == sorted({record.line for record in lines})
    assert len(lines) <= data.count(b"\n") + 1


fields = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@given(st.lists(st.lists(fields, min_size=2, max_size=4), max_size=6))
@settings(deadline=None)
def test_records_are_what_the_csv_module_wrote(table: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(table)
    records = list(csv_records.read_records(io.BytesIO(out.getvalue().encode()), "x.csv"))
    expected = [list(row) for row in table]
    if expected and out.getvalue().startswith("\ufeff"):
        return  # a byte order mark is taken off
    assert [list(record[1]) for record in records] == expected


payments = st.builds(
    Payment,
    line=st.just(0),
    payer=st.sampled_from("abc"),
    payee=st.just("z"),
    amount=st.integers(1, 9),
    asset=st.sampled_from(["EUR", "EUR", "USD"]),
    reference=st.just(b""),
)
tables = st.lists(payments | st.just(Reject(0, "bad", "")), max_size=40).map(
    lambda rows: [row._replace(line=number) for number, row in enumerate(rows, 2)]
)


@given(tables)
def test_funding_is_the_sum_of_what_each_payer_spends(rows: list[Payment | Reject]) -> None:
    seen: list[Reject] = []
    plan = plan_funding(rows, seen.append)
    paid = [row for row in rows if isinstance(row, Payment)]
    expected = {(row.payer, row.asset): 0 for row in paid}
    for row in paid:
        expected[row.payer, row.asset] += row.amount
    assert {(payer, asset): n for payer, totals in plan.totals.items() for asset, n in totals.items()} == expected
    assert (plan.payments, plan.rejects) == (len(paid), len(rows) - len(paid))
    assert seen == [row for row in rows if isinstance(row, Reject)]


def test_funding_beyond_what_can_be_minted_is_refused() -> None:
    row = Payment(7, "a", "b", 2**127, "EUR", b"")
    with pytest.raises(ConfigError, match=r"line 7: payments in EUR add up to over 2\^128 - 1"):
        plan_funding([row, row])


def naive_batches(rows: list[Payment | Reject], size: int) -> list[Batch]:
    """The definition: of the rows left, the first one's payer, its next rows up to `size` or another asset."""
    left = [row for row in rows if isinstance(row, Payment)]
    made = []
    while left:
        first = left[0]
        mine: list[Payment] = []
        for row in left:
            if row.payer == first.payer:
                if row.asset != first.asset or len(mine) == size:
                    break
                mine.append(row)
        left = [row for row in left if row not in mine]
        made.append(Batch(first.payer, first.asset, tuple(mine)))
    return made


@given(tables, st.integers(1, 6))
def test_batches_are_the_naive_ones(rows: list[Payment | Reject], size: int) -> None:
    assert list(batches(rows, size)) == naive_batches(rows, size)


@given(tables, st.integers(1, 6), st.integers(0, 8))
def test_held_payments_are_bounded_and_order_is_kept(rows: list[Payment | Reject], size: int, held: int) -> None:
    read = sent = 0

    def counted() -> list[Batch]:
        nonlocal read, sent
        made = []

        def reading():
            nonlocal read
            for row in rows:
                assert read - sent <= held, "a row is asked for only while few are held"
                read += isinstance(row, Payment)
                yield row

        for made_batch in batches(reading(), size, held):
            sent += len(made_batch.payments)
            made.append(made_batch)
        return made

    made = counted()
    firsts = [made_batch.payments[0].line for made_batch in made]
    assert firsts == sorted(firsts)
    assert all(len(b.payments) <= size and {(p.payer, p.asset) for p in b.payments} == {b[:2]} for b in made)
    for payer in "abc":
        mine = [row for made_batch in made if made_batch.payer == payer for row in made_batch.payments]
        assert mine == [row for row in rows if isinstance(row, Payment) and row.payer == payer]


def test_a_batch_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="--batch must be 1 or more, not 0"):
        list(batches([], 0))


def test_rejects_are_written_with_their_original_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rejects.csv"
    rows = rows_of(tmp_path, HEADER + b'\xff"q,b,1\na,b,0\n')
    with RejectWriter(path) as writer:
        assert not path.exists()
        for row in rows:
            assert isinstance(row, Reject)
            writer.write(row)
        assert writer.count == 2
    assert path.read_bytes() == b'line,reason,text\r\n2,not UTF-8,"\xff""q,b,1"\r\n3,amount is zero,"a,b,0"\r\n'
    with pytest.raises(ConfigError, match="can't be written: Is a directory"):
        RejectWriter(tmp_path).write(Reject(1, "x", "y"))


def test_the_packaged_sample_is_17_945_payments() -> None:
    with as_file(sample()) as path:
        source = CsvSource(path, Columns("from", "to", "value_wei", reference="transaction"))
        plan = plan_funding(source.rows())
        grouped = list(batches(source.rows(), 100))
    assert (plan.payments, plan.rejects) == (17_945, SAMPLE_ROWS - 17_945)
    assert sum(len(made.payments) for made in grouped) == plan.payments
    assert sum(totals["UNIT"] for totals in plan.totals.values()) == sum(p.amount for b in grouped for p in b.payments)
    assert max(totals["UNIT"] for totals in plan.totals.values()) > 2**64
