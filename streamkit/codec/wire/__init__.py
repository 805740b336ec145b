"""The wire format: fields, scans, runs and values."""
