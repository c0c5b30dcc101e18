"""SigLIP, the vision tower of the 3b and 13b critics."""
