"""The client's half of gRPC: channels, connections, calls and stubs."""
