"""The ways in for those that speak no gRPC: browsers, curl, and whatever reads HTTP."""
