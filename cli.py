"""Run the command line from a checkout: `python cli.py demo`."""

from streamkit.cli import main

if __name__ == "__main__":
    main()
