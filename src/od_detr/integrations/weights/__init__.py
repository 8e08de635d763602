"""Detectors trained with other code bases: their weights as ours, and ours as theirs."""
