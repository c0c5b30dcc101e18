"""The critic: a video and a question to a verdict, after VILA-1.5."""
