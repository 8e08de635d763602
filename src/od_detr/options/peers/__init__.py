"""What other packages call things; their names of our options stand beside these, as `known_as`."""
