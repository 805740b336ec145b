"""A record in its forms: item, row, columns and frame."""
