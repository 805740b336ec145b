"""The command `streamkit`, which `python -m streamkit` is too."""

# Before anything else is imported: a Ctrl-C while modules are being loaded ends us without a word.
# `_signal` is a part of the interpreter; `signal` would import some twenty modules first.
import _signal  # type: ignore[import-not-found]  # the interpreter has it, typeshed has not

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from streamkit.cli import main  # the handler comes first

if __name__ == "__main__":
    main()
