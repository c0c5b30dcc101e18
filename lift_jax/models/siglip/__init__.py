"""SigLIP vision tower: what the 3b and 13b critics see with."""
