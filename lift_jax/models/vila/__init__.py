"""VILA-1.5, the vision language model behind LiFT's critics."""
