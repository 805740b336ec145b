"""The records of now: rings, their readers and the engine around them."""
