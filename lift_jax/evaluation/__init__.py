"""How good a critic is, and what becomes of a model: numbers and intervals."""
