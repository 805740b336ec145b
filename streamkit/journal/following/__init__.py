"""Processes that read beside the one that writes a store."""
