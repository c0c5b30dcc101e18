"""InternViT-6B, the vision tower of the 40b critic."""
