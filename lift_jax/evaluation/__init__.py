"""How good is a critic: its answers beside those of people."""
