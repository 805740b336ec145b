"""Proofs of what streamkit promises: each prints its figures; the long forms run by `make soak`."""
