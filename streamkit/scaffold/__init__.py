"""What a project of one's own begins with: generated code, and a first service around it."""
