"""HTTP/2 on a transport: frames in and out, flow control, and what a peer may cost."""
