"""Readers of annotation formats: each turns a folder and a split into `Annotations`."""
