"""Rewards: from a critic's answers to the weight of a video in the loss."""
