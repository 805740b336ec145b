"""The plain encoder and decoder: slower, exact, and the oracle of the generated ones."""
