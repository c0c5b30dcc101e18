"""Rating videos with a critic, by the tens of thousands."""
