"""The configuration file: every option by every way, and no secret in sight."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from streamkit.cli.app import app
from streamkit.cli.commands.serve import settings_of
from streamkit.cli.input.configuration import NOT_IN_FILE, configuration
from tests.cli.tools import ServerProcess, invoke

GROUP: Any = typer.main.get_command(app)
SERVE: Any = GROUP.commands["serve"]
OPTIONS = [
    param
    for param in SERVE.params
    if param.param_type_name == "option" and param.name not in NOT_IN_FILE
]
SOME: dict[str, Any] = {
    "database": ["shop=shop.db", "other=other.db"],
    "port": 50077,
    "insecure": True,
    "web": True,
    "allow-origin": ["https://a.example", "https://b.example"],
    "allow-host": ["a.example"],
    "max-queries": 3,
    "workers": 2,
    "trace": True,
    "query-rows": 7,
    "host": "127.0.0.2",
    "durability": "full",
    "log-format": "json",
    "max-bytes": "3GB",
    "query-memory": "64MB",
    "query-bytes": "5MB",
    "metrics": "127.0.0.1:0",
    "retention": ["topics=metrics.>,age=1d", "services=api-*,bytes=5MB,keep_last=1"],
}


def key(param: Any) -> str:
    return str(max(param.opts, key=len)).removeprefix("--")


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else repr(value).replace("'", '"')


@pytest.fixture(autouse=True)
def no_files_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    for name in ("STREAMKIT_CONFIG", "STREAMKIT_ACCESS", "SHOP_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def parsed(*arguments: str) -> Any:
    return SERVE.make_context("serve", list(arguments))


def written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("param", OPTIONS, ids=key)
def test_each_option_by_each_way(
    param: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, default = str(param.name), parsed().params[str(param.name)]
    value = SOME.get(key(param), "9m")
    if isinstance(value, list):
        flags = [part for item in value for part in (f"--{key(param)}", item)]
    elif value is True:
        flags = [f"--{key(param)}"]
    else:
        flags = [f"--{key(param)}", str(value)]
    by_flag = parsed(*flags).params[name]
    assert by_flag != default
    file = written(tmp_path / "some.toml", f"[serve]\n{key(param)} = {toml(value)}\n")
    by_file = parsed("--config", file)
    assert by_file.params[name] == by_flag
    assert by_file.get_parameter_source(name).name == "DEFAULT_MAP"
    text = " ".join(value) if isinstance(value, list) else str(value)
    variable = param.envvar or f"STREAMKIT_SERVE_{key(param).upper().replace('-', '_')}"
    monkeypatch.setenv(variable, text)
    assert parsed().params[name] == by_flag
    # The environment outranks the file, and a flag both.
    other = {"database": ["x=y"], "durability": "normal", "log-format": "text"}.get(
        key(param), value if value is True else [] if isinstance(value, list) else 1
    )
    file = written(tmp_path / "other.toml", f"[serve]\n{key(param)} = {toml(other)}\n")
    outranked = parsed("--config", file)
    assert outranked.params[name] == by_flag
    assert outranked.get_parameter_source(name).name == "ENVIRONMENT"
    monkeypatch.setenv(variable, str(other) if other is not True else "0")
    assert parsed("--config", file, *flags).params[name] == by_flag


def test_the_places_and_never_the_current_directory(tmp_path: Path) -> None:
    written(tmp_path / "streamkit.toml", "[serve]\nport = 1\n")
    assert parsed().params["port"] == 50051
    written(tmp_path / "user" / "streamkit" / "streamkit.toml", "[serve]\nport = 2\n")
    assert parsed().params["port"] == 2
    assert configuration(parsed()).path == tmp_path / "user" / "streamkit" / "streamkit.toml"
    assert parsed("--config", "streamkit.toml").params["port"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]\nprot = 1\n", "there is no serve.prot; did you mean serve.port?"),
        ("[sevre]\n", "there is no sevre; did you mean serve?"),
        ("[serve]\nreload = true\n", "there is no serve.reload"),
        ('[serve]\nport = "x"\n', "serve.port: give a whole number"),
        ("[serve]\nport = 70000\n", "less than or equal to 65535"),
        ("[serve]\nweb = 1\n", "serve.web: give true or false"),
        ("[serve]\nretain = true\n", "serve.retain: give a text"),
        ('[serve]\nallow-origin = "x"\n', "serve.allow-origin: give a list"),
        ("serve = 1\n", "serve is a table: [serve]"),
        ("[serve\n", "Expected ']'"),
        ('[serve]\nstore = { env = "NOT_THERE" }\n', "NOT_THERE is not in the environment"),
        ('[serve]\nstore = { file = "/nothing" }\n', "cannot read /nothing"),
        ('[serve]\nstore = { fiel = "/nothing" }\n', "give a text, { file = ... }"),
        ('[serve]\nstore = { credential = "../x" }\n', "there is no credential '../x'"),
        ('[serve]\ndatabase = ["a=postgresql://u:hunter2@h/x"]\n', "a password does not belong"),
        ('[serve]\nretain = "soon"\n', "--retain: "),
        ('[serve]\nhost = "0.0.0.0"\n', "0.0.0.0 is open to other machines"),
        ('[serve]\naccess = "/nothing"\n', "cannot read /nothing"),
    ],
)
def test_what_cannot_be_meant_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = written(tmp_path / "some.toml", text)
    done = invoke("config", "check", "--config", file)
    assert done.returncode in (1, 2), done
    assert said in str(done.stderr) and str(done.stderr).count("\n") == 1, done.stderr
    assert "hunter2" not in str(done.stderr) + str(done.stdout)


def test_no_file_is_told(tmp_path: Path) -> None:
    done = invoke("serve", "--config", "/nothing.toml")
    assert done.returncode == 2
    assert str(done.stderr).startswith("streamkit: cannot read /nothing.toml: No such file")
    done = invoke("serve", "--config", written(tmp_path / "some.toml", "[serve]\nprot = 1\n"))
    assert done.returncode == 2 and "did you mean serve.port?" in str(done.stderr)


def test_show_tells_where_values_come_from_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://bob:hunter2@127.0.0.1/x"
    monkeypatch.setenv("SHOP_URL", url)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    written(tmp_path / "url", url + "\n")
    file = written(
        tmp_path / "some.toml",
        "[serve]\nport = 1234\n[serve.database]\n"
        f'a = {{ env = "SHOP_URL" }}\n'
        f'b = {{ file = "{tmp_path}/url" }}\nc = {{ credential = "url" }}\n',
    )
    monkeypatch.setenv("STREAMKIT_SERVE_GRACE", "9s")
    context = parsed("--config", file)
    assert context.params["databases"] == [f"a={url}", f"b={url}", f"c={url}"]
    assert settings_of(None, context)["databases"] == {"a": url, "b": url, "c": url}  # type: ignore[arg-type]  # no session is needed
    shown = str(invoke("config", "show", "--config", file).stdout)
    assert re.search(r"^port = 1234 +# file$", shown, re.MULTILINE)
    assert re.search(r'^grace = "9s" +# \$STREAMKIT_SERVE_GRACE$', shown, re.MULTILINE)
    assert re.search(r'^retain = "7d" +# default$', shown, re.MULTILINE)
    assert 'a = { env = "SHOP_URL" }' in shown
    monkeypatch.setenv("STREAMKIT_SERVE_DATABASE", f"d={url}")
    shown += str(invoke("config", "show", "--config", file).stdout)
    assert "d=postgresql://bob:***@127.0.0.1/x" in shown
    assert "hunter2" not in shown


def test_what_init_writes_loads_to_the_defaults(tmp_path: Path) -> None:
    done = invoke("config", "init")
    file = tmp_path / "user" / "streamkit" / "streamkit.toml"
    assert done.returncode == 0 and f"wrote {file}" in str(done.stderr)
    again = invoke("config", "init")
    assert again.returncode == 2 and "is there already" in str(again.stderr)
    defaults = {param.name: parsed("--config", os.devnull).params[param.name] for param in OPTIONS}
    assert parsed().params.items() >= defaults.items()
    # The same with every line taken in.
    text = re.sub(r"^# (?=[a-z-]+ = )", "", file.read_text(), flags=re.MULTILINE)
    for param in OPTIONS:
        assert re.search(rf"^{key(param)} = ", text, re.MULTILINE), key(param)
    found = parsed("--config", written(tmp_path / "all.toml", text)).params
    assert {name: found[name] or None for name in defaults} == {
        name: value or None for name, value in defaults.items()
    }


def test_a_server_starts_by_it(tmp_path: Path) -> None:
    file = written(tmp_path / "some.toml", f'[serve]\naccess-log = "{tmp_path}/calls"\n')
    assert invoke("config", "check", "--config", file).returncode == 0
    assert not (tmp_path / "calls").exists()
    server = ServerProcess(tmp_path / "store.db", "--config", file)
    server.stop()
    assert (tmp_path / "calls").exists()
