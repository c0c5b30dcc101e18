"""A small world of moving shapes, in which the truth about a clip is known."""
