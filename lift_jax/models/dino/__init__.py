"""DINO, a vision transformer whose features were learned without labels."""
