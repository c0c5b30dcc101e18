"""How good a critic is: its answers compared with human ratings."""
