"""streamkit: long-lived gRPC streams in pure Python."""

__version__ = "0.1.0"
