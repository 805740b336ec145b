"""The server's half of gRPC: listening, calls, their context and their one status."""
