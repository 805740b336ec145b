"""The gRPC stacks that are measured, each as a server program and a client program."""
