"""Side-by-side measurements: streamkit and its peers, in the same run on the same machine."""
