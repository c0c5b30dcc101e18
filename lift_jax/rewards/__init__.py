"""Rewards: from what a critic answers to the weight of a video."""
