"""Values that are not finite: steps that are skipped, the dump of a stopped run, and its replay."""
