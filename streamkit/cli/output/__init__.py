"""What the command line writes: streams, formats, and clean text."""
