"""The command `streamkit`."""

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    raise SystemExit("streamkit: no commands yet")
