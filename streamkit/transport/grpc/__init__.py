"""What gRPC adds to HTTP/2 and both sides share: messages, metadata, compression."""
