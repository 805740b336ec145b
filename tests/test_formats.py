"""Rows -> text in every format."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence

import pytest

from streamkit.cli.rendering.tables import TableWriter
from streamkit.formats import RowWriter, TextOptions, writer_for
from streamkit.generated.streamservice import Column

COLUMNS = [
    Column(name="id", type="INTEGER"),
    Column(name="name", type="TEXT"),
    Column(name="price", type="REAL"),
]
ROWS = [
    {"id": "1", "name": "plain", "price": "1.5"},
    {"id": "2", "name": 'quote " comma , tab \t new\nline', "price": "nan"},
    {"id": "9007199254740993", "price": "text in a number column"},
]


def written(writer: RowWriter, rows: Sequence[dict[str, str]] = ROWS) -> str:
    middle = len(rows) // 2
    return writer.begin() + writer.rows(rows[:middle]) + writer.rows(rows[middle:]) + writer.end()


def test_csv_reads_back() -> None:
    text = written(writer_for("csv", COLUMNS, TextOptions(null="-")))
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["id", "name", "price"]
    assert rows[2][1] == ROWS[1]["name"] and rows[3][1] == "-"


@pytest.mark.parametrize("cell", ["a\rb", "a\nb", 'a"b', "a,b", "", " a ", "a\r\n", '"'])
@pytest.mark.parametrize("width", [1, 2])
def test_csv_quotes_what_rfc_4180_wants_quoted(cell: str, width: int) -> None:
    columns = [Column(name=f"c{number}", type="TEXT") for number in range(width)]
    text = writer_for("csv", columns).rows([dict.fromkeys(("c0", "c1")[:width], cell)])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [[cell] * width]
    assert ('"' in text) == bool(set(cell) & set('",\r\n') or cell == "")


def test_null_may_be_written_as_nothing() -> None:
    for form, null in (("tsv", ""), ("csv", ""), ("markdown", "-")):
        line = writer_for(form, COLUMNS, TextOptions(null=null)).rows([{"id": "1", "price": "2"}])
        cells = re.split("[,\t|]", line.strip("|\n "))
        assert [cell.strip() for cell in cells] == ["1", null, "2"]


def test_csv_tells_an_empty_text_from_null() -> None:
    columns = [Column("a"), Column("b"), Column("c")]
    row = {"a": "", "c": "NULL"}
    assert writer_for("csv", columns).rows([row]) == '"",,NULL\n'
    named = writer_for("csv", columns, TextOptions(null="NULL")).rows([row])
    assert named == ',NULL,"NULL"\n'


def test_csv_without_header() -> None:
    text = written(writer_for("csv", COLUMNS, TextOptions(header=False)))
    assert text.startswith("1,plain,1.5\n") and ",," not in text.splitlines()[0]


def test_tsv_has_one_line_a_row() -> None:
    lines = written(writer_for("tsv", COLUMNS)).splitlines()
    assert len(lines) == 4
    assert lines[2].split("\t")[1] == 'quote " comma , tab \\t new\\nline'
    assert lines[3].split("\t")[1] == "\\N"


def test_json_lines_have_types() -> None:
    rows = [json.loads(line) for line in written(writer_for("jsonl", COLUMNS)).splitlines()]
    assert rows[0] == {"id": 1, "name": "plain", "price": 1.5}
    assert rows[1]["price"] is None, "JSON has no NaN"
    assert rows[2] == {
        "id": "9007199254740993",  # a JSON reader would round it
        "name": None,
        "price": "text in a number column",
    }


def test_json_is_one_array() -> None:
    assert json.loads(written(writer_for("json", COLUMNS)))[0]["id"] == 1
    assert json.loads(written(writer_for("json", COLUMNS), [])) == []
    unfinished = writer_for("json", COLUMNS)
    with pytest.raises(json.JSONDecodeError):
        json.loads(unfinished.begin() + unfinished.rows(ROWS))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("BOOLEAN", "true", True),
        ("bool", "0", False),
        ("int64", "7", 7),
        ("BIGINT", "-7", -7),
        ("uint32", "7", 7),
        ("DOUBLE", "inf", None),
        ("double precision", "2.5", 2.5),
        ("DECIMAL(10,2)", "1.10", "1.10"),
        ("", "5", "5"),
        ("POINT", "5", "5"),
        ("TEXT", "5", "5"),
    ],
)
def test_json_values(kind: str, text: str, value: object) -> None:
    writer = writer_for("jsonl", [Column(name="v", type=kind)])
    assert json.loads(writer.rows([{"v": text}]))["v"] == value


def test_markdown() -> None:
    lines = written(writer_for("markdown", COLUMNS), [{"id": "1", "name": "a|b\nc"}]).splitlines()
    assert lines == ["| id | name | price |", "| --- | --- | --- |", "| 1 | a\\|b<br>c |  |"]


def test_table_aligns_and_sanitises() -> None:
    rows = [{"id": "1", "name": "日本"}, {"id": "20", "name": "\x1b[2J"}]
    lines = written(TableWriter(COLUMNS[:2], TextOptions()), rows).splitlines()
    # Sized by the first of two batches; what is wider later is left whole in a pipe.
    assert lines == ["id  name", "--  ----", " 1  日本", "20  \\x1b[2J"]


def test_table_fits_a_terminal() -> None:
    rows = [{"id": "1", "name": "x" * 300, "price": "1"}]
    writer = TableWriter(COLUMNS, TextOptions(), width=60)
    lines = (writer.begin() + writer.rows(rows) + writer.end()).splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert "…" in lines[2] and lines[2].startswith(" 1") and lines[2].endswith("1")
    whole = TableWriter(COLUMNS, TextOptions())
    assert "x" * 300 in whole.rows(rows)


def test_columns_that_find_no_room_are_named() -> None:
    columns = [Column(name=f"column {number}", type="TEXT") for number in range(12)]
    row = {column.name: "a text that is somewhat long" for column in columns} | {"column 1": "7"}
    writer = TableWriter(columns, TextOptions(), width=80)
    lines = (writer.begin() + writer.rows([row]) + writer.end()).splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
    assert lines[-1].startswith("... 7 more columns: column 5, column 6,")
    assert lines[2].count("a text that") == 4 and "column 1" in lines[0]
    narrow = TableWriter(columns[:1], TextOptions(), width=5)
    assert narrow.rows([row]).splitlines()[2] == "a te…"


def test_a_number_is_never_cut() -> None:
    rows = [{"id": "12345678901234567890", "name": "x" * 90, "price": "1"}]
    writer = TableWriter(COLUMNS, TextOptions(), width=60)
    assert "12345678901234567890" in writer.rows(rows)


def test_vertical() -> None:
    lines = written(writer_for("vertical", COLUMNS), [{"id": "1", "name": "a\nb"}]).splitlines()
    assert lines == ["--- 1 ---", "id     1", "name   a", "       b", "price  NULL"]


def test_an_empty_table_shows_its_columns() -> None:
    writer = TableWriter(COLUMNS, TextOptions())
    assert (writer.begin() + writer.end()).startswith("id")


def test_a_tab_does_not_shift_the_columns_of_a_table() -> None:
    columns = [Column(name="a\tb", type="TEXT"), Column(name="z", type="TEXT")]
    text = written(TableWriter(columns, TextOptions()), [{"a\tb": "x\ty", "z": "1"}])
    assert "\t" not in text
    assert len({line.rindex(line.strip()[-1]) for line in text.splitlines()}) == 1
