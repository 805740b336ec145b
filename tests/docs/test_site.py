"""The pages become a site, without a warning, and each link in it leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

from tests.docs.pages import DOCS, ROOT


def test_the_site_is_built_strictly_and_is_whole(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--strict"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    for page in DOCS.rglob("*.md"):
        made = site / page.relative_to(DOCS).with_suffix(".html")
        assert made.exists(), page
        text = made.read_text()
        assert 'src="https://' not in text, "nothing is fetched from elsewhere"
        for target in re.findall(r'(?:href|src)="?([\w./%-]+\.(?:html|svg|png))', text):
            if not target.startswith(("http", "/")):
                assert (made.parent / unquote(target)).exists(), (made.name, target)
