"""What is said of a command line that cannot be meant."""

from __future__ import annotations

import pytest

from tests.cli.tools import invoke


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("serve --access-log --port 1", "--access-log needs FILE|-; --port is an option itself"),
        ("query -d -q x", "-d needs NAME; -q is an option itself"),
        ("serve --port --host x", "--port needs a value; --host is an option itself"),
    ],
)
def test_an_option_does_not_take_the_next_one_for_its_value(line: str, said: str) -> None:
    done = invoke(*line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"streamkit: {said}; see `streamkit {line.split()[0]} --help`\n"


def test_what_follows_a_foreign_command_is_its_own(server: str) -> None:
    done = invoke("run", "--job", "usage", "echo", "-s", "-n", server=server)
    assert done.returncode == 0, done.stderr
