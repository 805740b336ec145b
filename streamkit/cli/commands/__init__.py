"""One module for each group of commands; each offers `register(app)`.

A command parses, calls the client and returns an exit code. What it needs is imported when it
runs: these modules are all loaded for `--help`.
"""
