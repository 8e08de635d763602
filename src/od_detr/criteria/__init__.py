"""Matching costs, Hungarian matching and losses, as pure functions."""
