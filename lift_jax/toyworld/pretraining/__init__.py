"""What made the weights that come with the toy world."""
