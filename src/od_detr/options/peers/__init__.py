"""Words of other packages. Their names for our options are declared with these, as `known_as`."""
