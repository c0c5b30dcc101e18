"""CogVideoX transformer and causal video VAE."""
