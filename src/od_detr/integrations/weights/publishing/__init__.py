"""A trained detector as others get it: a folder with a model card, or a repository of the hub."""
