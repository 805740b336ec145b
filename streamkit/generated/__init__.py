"""What schema/ becomes; importing it makes every message fast and strict."""

import streamkit.codec  # noqa: F401
