"""From the words of a command to its options, and the help that lists them."""
