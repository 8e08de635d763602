"""Measurements of this package and its peers, a module for each `od-detr benchmark` measurement.

Every module has a `measure` that returns its figures by name; `timing.py` says how they are taken.
"""
