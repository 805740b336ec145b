"""query: every format from a real server, typed parameters, honest ends."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from streamkit.cli.exits import UsageError
from streamkit.cli.output.streams import Output
from streamkit.cli.sinks import open_sink
from streamkit.formats import TextOptions
from streamkit.generated.streamservice import QueryResult
from tests.cli.tools import COMMAND, Terminal, environment, invoke

FIRST = "SELECT id, name, price FROM items ORDER BY id LIMIT 12"


def query(server: str, *arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    return invoke("query", "-d", "shop", *arguments, server=server, **options)  # type: ignore[arg-type]  # options of the test's own


def test_csv_is_what_a_pipe_gets(server: str) -> None:
    done = query(server, FIRST, "--batch", "5")
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == ["id", "name", "price"] and rows[1] == ["1", "item 1", "0.25"]
    assert rows[10] == ["10", "", "2.5"] and len(rows) == 13
    assert re.fullmatch(r"streamkit: 12 rows, \d+ B in [\d.]+s\n", done.stderr)


def test_the_other_formats(server: str) -> None:
    rows = [json.loads(line) for line in query(server, FIRST, "-o", "jsonl").stdout.splitlines()]
    assert rows[0] == {"id": 1, "name": "item 1", "price": 0.25} and rows[9]["name"] is None
    assert json.loads(query(server, FIRST, "-o", "json").stdout) == rows
    assert query(server, FIRST, "-o", "tsv").stdout.splitlines()[10] == "10\t\\N\t2.5"
    assert query(server, FIRST, "-o", "markdown").stdout.startswith("| id | name | price |\n| ---")
    table = query(server, FIRST, "-o", "table", "--null", "-").stdout.splitlines()
    assert table[0].split() == ["id", "name", "price"] and table[11].split() == ["10", "-", "2.5"]
    assert query(server, FIRST, "--no-header", "-q").stdout.startswith("1,item 1,0.25\n")


def test_an_empty_result(server: str) -> None:
    nothing = "SELECT id FROM items WHERE id < 0"
    assert query(server, nothing).stdout == "id\n"
    assert json.loads(query(server, nothing, "-o", "json").stdout) == []
    assert query(server, nothing, "-o", "jsonl").stdout == ""
    assert "0 rows" in query(server, nothing).stderr


def test_statements_from_elsewhere(server: str, tmp_path: Path) -> None:
    file = tmp_path / "q.sql"
    file.write_text("SELECT 1 AS one\n")
    assert query(server, "-f", str(file)).stdout == "one\n1\n"
    assert invoke("query", "-", server=server, stdin="SELECT 2 AS two").stdout == "two\n2\n"
    assert query(server, "-f", "/no/such.sql").returncode == 1


def test_parameters_have_types(server: str) -> None:
    sql = "SELECT typeof(:n), typeof(:r), typeof(:t), typeof(:x), typeof(:b), typeof(:s)"
    given = ["n=5", "r=1.5", "t=word", "x=null", "b:blob=00ff", "s:text=5"]
    line = [word for text in given for word in ("-p", text)]
    done = query(server, sql, *line, "--no-header")
    assert done.stdout == "integer,real,text,null,blob,text\n", done.stderr
    picked = query(server, "SELECT name FROM items WHERE id = :id", "-p", "id=7", "--no-header")
    assert picked.stdout == "item 7\n"


def test_out(server: str, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    done = query(server, FIRST, "--out", str(target))
    assert done.stdout == "" and json.loads(target.read_text().splitlines()[0])["id"] == 1
    assert query(server, FIRST, "--out", "/no/such/dir/x.csv").returncode == 1


@pytest.mark.parametrize("name", ["rows.csv", "rows.arrow", "rows.parquet"])
def test_out_keeps_what_was_there_until_there_is_a_result(
    server: str, tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    assert query(server, "SELEC", "--out", str(target)).returncode == 1
    assert not target.exists()
    target.write_text("what was there before, and longer than what comes\n" * 100)
    assert query(server, "SELEC", "--out", str(target)).returncode == 1
    assert target.read_text().startswith("what was there")
    assert query(server, "SELECT 7 AS a", "--out", str(target)).returncode == 0
    if name == "rows.csv":
        assert target.read_text() == "a\n7\n"
    elif name == "rows.arrow":
        with pyarrow.ipc.open_stream(target) as reader:
            assert reader.read_all().to_pylist() == [{"a": 7}]
    else:
        assert pyarrow.parquet.read_table(target).to_pylist() == [{"a": 7}]


def test_a_result_that_fails_half_way_leaves_the_file(server: str, tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("precious")
    target.chmod(0o640)
    failing = "SELECT abs(CASE id WHEN 9000 THEN -9223372036854775808 ELSE id END) FROM items"
    done = query(server, failing, "--out", str(target))
    assert done.returncode == 1 and "is as it was before" in done.stderr
    assert target.read_text() == "precious" and os.listdir(tmp_path) == ["rows.csv"]
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    assert query(server, "SELECT 1 AS a", "--out", str(link)).returncode == 0
    assert link.is_symlink() and target.read_text() == "a\n1\n"
    assert target.stat().st_mode & 0o777 == 0o640


def test_what_parquet_cannot_hold_is_named(tmp_path: Path) -> None:
    kind = pyarrow.month_day_nano_interval()
    schema = pyarrow.schema([("id", pyarrow.int64()), ("iv", kind)])
    stream = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(stream, schema):
        pass
    target = tmp_path / "keep.parquet"
    target.write_text("precious")
    with (
        pytest.raises(UsageError, match=r"'iv' is of type month_day_nano_interval.*CAST"),
        open_sink(Output(), "parquet", str(target), TextOptions(), 0) as sink,
    ):
        sink.arrow(QueryResult(arrow_ipc=stream.getvalue().to_pybytes()))
    assert target.read_text() == "precious"


@pytest.mark.parametrize("form", ["csv", "arrow", "parquet"])
def test_out_to_a_full_disk(server: str, form: str) -> None:
    done = query(server, FIRST, "-o", form, "--out", "/dev/full")
    assert done.returncode == 1
    assert done.stderr.endswith("streamkit: No space left on device\n")
    nowhere = query(server, FIRST, "-o", form, "--out", "/")
    assert nowhere.returncode == 1 and nowhere.stderr == "streamkit: /: Is a directory\n"


def test_a_file_that_is_not_text(server: str, tmp_path: Path) -> None:
    file = tmp_path / "q.sql"
    file.write_bytes(b"SELECT '\xff'")
    done = query(server, "-f", str(file))
    assert done.returncode == 2
    assert done.stderr == f"streamkit: {file}: byte 9 is not UTF-8 text\n"
    file.write_bytes(b"\xef\xbb\xbfSELECT 1 AS a")  # as some editors begin a file
    assert query(server, "-f", str(file)).stdout == "a\n1\n"


def test_arrow_and_parquet(server: str, tmp_path: Path) -> None:
    everything = "SELECT * FROM items ORDER BY id"
    for name in ("rows.arrow", "rows.parquet"):
        done = query(server, everything, "--out", str(tmp_path / name))
        assert done.returncode == 0 and "20,000 rows" in done.stderr, done.stderr
    with pyarrow.ipc.open_stream(tmp_path / "rows.arrow") as reader:
        table = reader.read_all()
    assert table.num_rows == 20_000 and table.column("name").null_count == 2000
    assert pyarrow.parquet.read_table(tmp_path / "rows.parquet").equals(table)
    piped = subprocess.run(
        [*COMMAND, "query", "-d", "shop", everything, "-o", "arrow"],
        capture_output=True,
        env=environment(server),
        check=True,
    )
    assert pyarrow.ipc.open_stream(piped.stdout).read_all().equals(table)


def test_a_result_that_breaks_off_says_so(server: str) -> None:
    """The database fails after many rows: not 0, and the rows before it are counted."""
    sql = "SELECT CASE WHEN id < 15000 THEN id ELSE abs(-9223372036854775807 - 1) END FROM items"
    for form in ("csv", "json"):
        done = query(server, sql, "-o", form)
        assert done.returncode == 1
        match = re.search(r"not complete: failed after ([\d,]+) rows", done.stderr)
        assert match and 0 < int(match[1].replace(",", "")) < 15000
        assert "integer overflow" in done.stderr
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)


def test_timeout(server: str) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    done = query(server, endless, "--timeout", "300ms")
    assert done.returncode == 124, done.stderr


def test_interrupt_stops_it(server: str) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    process = subprocess.Popen(
        [*COMMAND, "query", "-d", "shop", endless],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(server),
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"i\n"
    process.send_signal(signal.SIGINT)
    while process.stdout.read(1 << 20):
        pass
    assert b"interrupted after" in process.stderr.read()
    assert process.wait(10) == 130
    process.stdout.close()
    process.stderr.close()


def test_memory_is_flat(server: str) -> None:
    """Three hundred thousand rows do not make the command larger than a few do."""
    many = "SELECT a.id, a.name, a.price FROM items a, items b LIMIT {}"

    def peak(rows: int) -> int:
        process = subprocess.Popen(
            [*COMMAND, "query", "-d", "shop", many.format(rows), "--batch", "500", "-q"],
            stdout=subprocess.DEVNULL,
            env=environment(server),
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss

    few, lots = peak(1000), peak(300_000)
    print(f"peak memory: {few} KiB for 1,000 rows, {lots} KiB for 300,000")
    assert lots - few < 16 * 1024


def test_a_table_on_a_terminal(server: str) -> None:
    with Terminal("query", "-d", "shop", "SELECT * FROM items", "--limit", "3", server=server) as t:
        assert t.wait() == 0
        assert t.lines[0].split() == ["id", "name", "price"]
        assert t.lines[2].split() == ["1", "item", "1", "0.25"] and t.lines[4].startswith(" 3")
        assert "the first 3 " in t.text and "--limit 0" in t.text


def test_progress_on_a_terminal_leaves_the_data_alone(server: str, tmp_path: Path) -> None:
    sql = "SELECT a.id FROM items a, items b LIMIT 100000"
    target = tmp_path / "out.csv"
    line = f"{' '.join(COMMAND)} query -d shop '{sql}' > {target}"
    with Terminal(command=["bash", "-c", line], server=server) as terminal:
        assert terminal.wait(60) == 0
        assert b"rows/s" in terminal.raw and "100,000 rows" in terminal.text
    assert target.read_text().count("\n") == 100_001 and "\x1b" not in target.read_text()


def test_tables_and_schema(server: str) -> None:
    assert invoke("tables", "-d", "shop", server=server).stdout.splitlines()[2].split() == [
        "items",
        "table",
    ]
    own = invoke("tables", "-o", "jsonl", server=server).stdout
    names = [json.loads(line)["name"] for line in own.splitlines()]
    assert {"updates", "logs", "jobs"} <= set(names)
    shown = invoke("schema", "items", "-d", "shop", server=server).stdout.splitlines()
    assert [line.split()[:2] for line in shown[2:]] == [
        ["id", "INTEGER"],
        ["name", "TEXT"],
        ["price", "REAL"],
    ]
