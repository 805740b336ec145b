"""What the codec installs into betterproto's classes: behaviour and JSON."""
