"""Several processes that are one server: one owns the store, the others serve."""
