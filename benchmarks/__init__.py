"""Measurements of this package beside its peers', a module for each `od-detr benchmark` verb.

Every module has a `measure` that returns its figures by name; `timing.py` says how they are taken.
"""
