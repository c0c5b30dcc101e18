"""CLIP, which maps images and texts to one space."""
