"""What looks at calls from outside: which ones run, and a line for each that has ended."""

from __future__ import annotations
